"""Tables of the messages that a process handles, in memory that outlives it: the parent of `--processes` keeps it.

A killed process cannot report what it was doing. So it enters each message that it handles in a table, by the hash of its
header, and removes it when the handler has ended. The parent hands the memory to the next process, which finds the messages
that were being handled when its predecessor ended by itself. A parent that ends a process drops its table.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

DIGEST_BYTES: Final = 32
"""Length of H(header) (SPEC.md section 2)."""
NOWHERE: Final = -1
"""The place of a message for which the table had no room."""


class InFlightTable:
    """A table of digests in `memory`, whose length is a multiple of 32 bytes; 32 zero bytes are a free place.

    `left` are the digests found when the table was opened; opening it empties the table. `begin_again` empties it, too.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        count = len(memory) // DIGEST_BYTES
        digests = [bytes(memory[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]) for place in range(count)]
        self.left = tuple(digest for digest in digests if any(digest))
        memory[:] = bytes(len(memory))
        self._free = list(range(count))

    def begin_again(self) -> None:
        """Forget all messages: their handlers were ended by this process, which is no message's fault."""
        self.left = ()
        self._memory[:] = bytes(len(self._memory))
        self._free = list(range(len(self._memory) // DIGEST_BYTES))

    def enter(self, digest: bytes) -> int:
        """Enter a message by its hash of 32 bytes and return its place; `NOWHERE` if the table is full."""
        if not self._free:
            return NOWHERE
        place = self._free.pop()
        self._memory[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES] = digest
        return place

    def leave(self, place: int) -> None:
        """Free a place."""
        if place != NOWHERE:
            self._memory[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES] = bytes(DIGEST_BYTES)
            self._free.append(place)


@contextmanager
def open_memory() -> Iterator[int]:
    """Open empty memory that processes can share, and yield its descriptor; it is freed once all of them have closed it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sealbus-in-flight")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def tables_in(descriptor: int, *, agents: int, places: int) -> tuple[InFlightTable, ...]:
    """Return a table of `places` places for each of `agents` agents in the memory of `descriptor`, which this closes.

    Processes that share a memory must have the same numbers of agents and places.
    """
    size = places * DIGEST_BYTES
    try:
        os.set_inheritable(descriptor, False)
        if os.fstat(descriptor).st_size != agents * size:
            os.ftruncate(descriptor, agents * size)
        memory = memoryview(mmap.mmap(descriptor, agents * size))
    finally:
        os.close(descriptor)
    return tuple(InFlightTable(memory[number * size : (number + 1) * size]) for number in range(agents))
