"""The table of what a process handles: what is in it when that process ends is there for the next one."""

from __future__ import annotations

import os
import stat

import pytest

from sealbus.agents.runtime.process.in_flight import DIGEST_BYTES, InFlightTable, open_memory, tables_in

A, B, C = (bytes([value]) * 32 for value in (1, 2, 3))


def opened(memory: int, *, agents: int = 1, places: int = 2) -> tuple[InFlightTable, ...]:
    """Open the tables as a child does, which closes the descriptor that it inherited."""
    return tables_in(os.dup(memory), agents=agents, places=places)


def test_what_was_not_taken_out_is_found_once_by_the_next() -> None:
    with open_memory() as memory:
        [first] = opened(memory)
        assert first.left == ()
        gone = first.enter(A)
        first.enter(B)
        first.leave(gone)
        [second] = opened(memory)
        assert second.left == (B,)
        assert opened(memory)[0].left == ()


def test_each_agent_has_a_table_of_its_own() -> None:
    with open_memory() as memory:
        first, second = opened(memory, agents=2)
        first.enter(A)
        second.enter(B)
        assert [table.left for table in opened(memory, agents=2)] == [(A,), (B,)]


def test_what_finds_no_room_is_not_noted_and_takes_no_place() -> None:
    with open_memory() as memory:
        [table] = opened(memory)
        places = [table.enter(digest) for digest in (A, B, C)]
        table.leave(places[2])
        table.leave(places[0])
        table.enter(C)
        assert sorted(opened(memory)[0].left) == [B, C]


def test_memory_is_shared_where_there_is_no_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with open_memory() as memory:
        assert stat.S_ISREG(os.fstat(memory).st_mode)
        opened(memory)[0].enter(A)
        assert opened(memory)[0].left == (A,)


def test_the_descriptor_is_closed_with_the_memory() -> None:
    with open_memory() as memory:
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(memory)


def test_a_table_that_begins_again_has_no_messages_and_all_places() -> None:
    memory = memoryview(bytearray(2 * DIGEST_BYTES))
    memory[:DIGEST_BYTES] = b"a" * DIGEST_BYTES
    table = InFlightTable(memory)
    assert list(table.left) == [b"a" * DIGEST_BYTES]
    assert {table.enter(b"b" * DIGEST_BYTES), table.enter(b"c" * DIGEST_BYTES)} == {0, 1}
    table.begin_again()
    assert list(table.left) == []
    assert not any(memory)
    assert {table.enter(b"d" * DIGEST_BYTES), table.enter(b"e" * DIGEST_BYTES)} == {0, 1}
