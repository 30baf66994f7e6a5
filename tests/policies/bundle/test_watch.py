"""Noticing that a file was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from support.policies import put

from sealbus.policies.bundle.files import Mark, changes, mark


def write(content: bytes, file: Path) -> None:
    file.write_bytes(content)


def remove(file: Path) -> None:
    file.unlink()


async def soon(found: AsyncGenerator[Mark, None]) -> Mark:
    return await asyncio.wait_for(anext(found), 5)


async def test_a_replacement_a_write_and_nothing_else_is_a_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    put(b"1", file)
    since = mark(file)
    assert since is not None
    found = changes(file, since, every=0.005)

    put(b"2", file)
    first = await soon(found)
    assert first == mark(file)
    assert first != since

    write(b"longer", file)
    assert await soon(found) == mark(file)

    waiting = asyncio.create_task(anext(found))
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    remove(file)
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    put(b"again", file)
    assert await asyncio.wait_for(waiting, 5) == mark(file)
    await found.aclose()


async def test_what_changed_before_the_first_look_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert mark(file) is None
    put(b"1", file)
    found = changes(file, None)
    assert await soon(found) == mark(file)
    await found.aclose()
