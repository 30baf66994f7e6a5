"""Restored streams: which stream a message was first stored in, and what no notary can say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.restored import RestoredStream, first_created

ONE = RestoredStream(stream="TASKS", before=100, created=200, last=7)
TWO = RestoredStream(stream="TASKS", before=200, created=300, last=9)


def arrival(sequence: int, stored: int, created: int = 300, stream: str = "TASKS") -> StreamArrival:
    return StreamArrival("task.a.b", b"", stream, sequence, stored, created, 1)


@pytest.mark.parametrize(
    ("one", "known", "expected"),
    [
        (arrival(7, 150), (ONE, TWO), 100),
        (arrival(7, 150), (TWO, ONE), 100),
        (arrival(8, 250), (ONE, TWO), 200),
        (arrival(8, 150), (ONE, TWO), 200),
        (arrival(10, 250), (ONE, TWO), 300),
        (arrival(7, 300), (ONE, TWO), 300),
        (arrival(7, 150), (ONE,), 300),
        (arrival(7, 150), (TWO,), 200),
        (arrival(7, 150), (), 300),
        (arrival(7, 150, stream="EVENTS"), (ONE, TWO), 300),
        (arrival(7, 150, created=301), (ONE, TWO), 301),
        (arrival(7, 150, created=200), (ONE, TWO), 100),
    ],
)
def test_a_message_is_of_the_stream_that_stored_it_first(
    one: StreamArrival, known: tuple[RestoredStream, ...], expected: int
) -> None:
    assert first_created(one, known) == expected


@pytest.mark.parametrize(
    "change",
    [{"stream": ""}, {"stream": "a.b"}, {"stream": "a" * 256}, {"before": -1}, {"before": 200}, {"before": 201},
     {"created": 2**53}, {"last": -1}, {"last": 2**53}],
    ids=str,
)  # fmt: skip
def test_what_no_notary_can_say(change: dict[str, Any]) -> None:
    with pytest.raises(LogError) as caught:
        replace(ONE, **change)
    assert caught.value.code is Code.BAD_NOTE


NUMBER = st.integers(0, 12)
ROWS = st.builds(
    lambda stream, before, younger, last: RestoredStream(
        stream=stream, before=before, created=before + younger, last=last
    ),
    st.sampled_from(["TASKS", "EVENTS"]), NUMBER, st.integers(1, 6), NUMBER,
)  # fmt: skip


@given(st.lists(ROWS, max_size=12), NUMBER, NUMBER, NUMBER)
def test_nothing_that_is_said_makes_a_stream_younger_or_of_another_time(
    known: list[RestoredStream], sequence: int, stored: int, created: int
) -> None:
    """And it ends, whatever is said."""
    found = first_created(arrival(sequence, stored, created), known)
    assert found == created or found in {one.before for one in known if one.stream == "TASKS"}
    assert found <= created
    if stored >= created or not any(one.created == created and sequence <= one.last for one in known):
        assert found == created
