"""The search in memory that other tests rely on finds what a process holds, in each form, and nothing else."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.memory import search_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory of another process is read by /proc")

# It gets the marker by standard input: what stands among its arguments would be found there.
HOLDING = '''
import base64, mmap, sys
text = sys.stdin.readline().strip()


def across_pages():
    """Put the text, backwards, over the end of a page, byte by byte, so that it stands nowhere else in that way."""
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    for place, character in enumerate(reversed(text), mmap.PAGESIZE - 10):
        pages[place] = ord(character)
    return pages


held = {
    "plain": lambda: text,
    "bytes": lambda: text.encode(),
    "wide": lambda: text + chr(0x20ac),
    "widest": lambda: text + chr(0x1f600),
    "base64": lambda: base64.b64encode(b"Bearer " + text.encode()),
    "across pages": across_pages,
}[sys.argv[1]]()
print("ready", flush=True)
sys.stdin.read()
'''


@contextmanager
def child(kind: str, said: str) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{said}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        yield process.pid


@pytest.mark.parametrize(
    ("kind", "form"),
    [("plain", "plain"), ("bytes", "plain"), ("wide", "UCS-2"), ("widest", "UCS-4"), ("base64", "base64 at 1")],
)
def test_what_a_process_holds_is_found(kind: str, form: str) -> None:
    marker = secrets.token_urlsafe(40)
    with child(kind, marker) as pid:
        found = search_memory(pid, {"it": marker.encode(), "another": secrets.token_bytes(32)})
    assert {one.marker for one in found} == {"it"}
    assert form in {one.form for one in found}
    assert marker not in repr(found)


def test_what_it_does_not_hold_is_not_found() -> None:
    marker = secrets.token_urlsafe(40)
    with child("plain", secrets.token_urlsafe(40)) as pid:
        assert search_memory(pid, {"it": marker.encode()}) == []


def test_a_marker_over_the_end_of_a_page_is_found() -> None:
    marker = secrets.token_urlsafe(40)
    with child("across pages", marker) as pid:
        assert {one.form for one in search_memory(pid, {"it": marker[::-1].encode()})} == {"plain"}


def test_the_process_goes_on() -> None:
    with child("plain", secrets.token_urlsafe(40)) as pid:
        search_memory(pid, {"it": b"does not matter"})
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("S", "R")
