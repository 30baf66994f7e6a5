"""Looks for secrets in the memory of a running process (Linux), in the forms in which secrets stand there."""

from __future__ import annotations

import os
import signal
import sys
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import pytest
from support.secret_search import forms

__all__ = ["Found", "search_memory"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MOST_BYTES: Final = 1 << 30
"""Of one process, copied before it is searched: more than anything that a test starts holds."""
_STOP_SECONDS: Final = 5.0
_LOOK_EVERY: Final = 0.002
_LONGEST: Final = 1_024
"""Most bytes of a marker."""
_PRESENT: Final = 1 << 63 | 1 << 62
"""Bits of a page that is in memory or swapped out; others were never written, or stand in a file alone."""

_PRIVATE: Final = ("[vvar", "[vsyscall]")
"""The kernel's own pages, which no process writes; some of them cannot be read this way."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a marker stands; of the marker itself only its name is said."""

    marker: str
    form: str
    mapping: str
    """The mapping's file or kind; empty for memory without a name, such as that of Python's objects."""
    address: int


def search_memory(pid: int, markers: Mapping[str, bytes]) -> list[Found]:
    """Return the places of `markers` in the memory of the process `pid`, each form of a marker once a run of pages.

    It is copied while the process is stopped, so that nothing moves from what is yet to be read to what has been. Memory that
    was freed and not written again is searched as well. Skips the test elsewhere than on Linux.
    """
    if sys.platform != "linux":
        pytest.skip("memory of another process is read by /proc")
    assert all(8 <= len(value) <= _LONGEST for value in markers.values())
    # Several forms are often the same bytes; the first names them.
    needles: dict[bytes, tuple[str, str]] = {}
    for name, value in markers.items():
        for form, needle in _forms(value).items():
            needles.setdefault(needle, (name, form))
    with _stopped(pid):
        copied = list(_copied(pid))
    assert copied, "nothing could be read"
    return [
        Found(marker, form, mapping, address + at)
        for mapping, address, content in copied
        for needle, (marker, form) in needles.items()
        if (at := content.find(needle)) >= 0
    ]


def _forms(value: bytes) -> dict[str, bytes]:
    """Return the forms of `value` in memory: those in which it travels, and texts whose characters have two or four bytes."""
    text = value.decode("latin-1")
    return {**forms(value), "UCS-2": text.encode("utf-16-le"), "UCS-4": text.encode("utf-32-le")}


def _copied(pid: int) -> Iterator[tuple[str, int, bytes]]:
    """Yield each run of pages that the process has: the mapping, the address and the bytes."""
    folder, left = Path("/proc") / str(pid), _MOST_BYTES
    with (folder / "mem").open("rb", buffering=0) as memory, (folder / "pagemap").open("rb", buffering=0) as pages:
        for start, end, name in _mappings(folder):
            states = array("Q", os.pread(pages.fileno(), (end - start) // _PAGE * 8, start // _PAGE * 8))
            for present, run in groupby(enumerate(states), lambda one: bool(one[1] & _PRESENT)):
                if not present:
                    continue
                places = [number for number, _ in run]
                left -= len(places) * _PAGE
                assert left > 0, "more memory than any process of a test may have"
                address = start + places[0] * _PAGE
                yield name, address, _read(memory.fileno(), address, len(places) * _PAGE)


def _read(memory: int, address: int, size: int) -> bytes:
    content = os.pread(memory, size, address)
    assert len(content) == size, "a page that is there could not be read"
    return content


def _mappings(folder: Path) -> Iterator[tuple[int, int, str]]:
    for line in (folder / "maps").read_text().splitlines():
        place, permissions, _, _, _, *name = line.split(maxsplit=5)
        start, _, end = place.partition("-")
        if permissions.startswith("r") and not "".join(name).startswith(_PRIVATE):
            yield int(start, 16), int(end, 16), "".join(name)


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Stop all threads of a process while entered."""
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + _STOP_SECONDS
        while not _has_stopped(pid):
            assert time.monotonic() < deadline, "the process does not stop"
            time.sleep(_LOOK_EVERY)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _has_stopped(pid: int) -> bool:
    """Return whether every thread is stopped; its state follows the name, which may hold anything."""
    try:
        said = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        # A thread ended between two looks.
        return False
    return {one.rpartition(")")[2].split()[0] for one in said} <= {"T", "t"}
