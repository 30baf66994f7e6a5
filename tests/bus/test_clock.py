"""The clock in microseconds, and ids of RFC 9562."""

from __future__ import annotations

import time
import uuid

from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import uuid7


def test_the_clock_is_in_microseconds() -> None:
    before = time.time_ns() // 1_000
    assert before <= wall_clock() <= time.time_ns() // 1_000


def test_an_id_is_a_uuid_of_version_7_with_its_time_in_milliseconds() -> None:
    made = uuid.UUID(bytes=uuid7(1_764_000_000_123_456))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1_764_000_000_123


def test_ids_of_one_moment_differ() -> None:
    assert len({uuid7(1) for _ in range(1_000)}) == 1_000
