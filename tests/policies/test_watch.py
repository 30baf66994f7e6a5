"""Noticing that a file was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from sealbus.policies.watch import Mark, changes, mark


async def soon(found: AsyncGenerator[Mark, None]) -> Mark:
    return await asyncio.wait_for(anext(found), 5)


async def test_a_replacement_a_write_and_nothing_else_is_a_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    since = mark(file)
    assert since is not None
    found = changes(file, since, every=0.005)

    (tmp_path / "new").write_bytes(b"2")
    (tmp_path / "new").replace(file)
    first = await soon(found)
    assert first == mark(file)
    assert first != since

    file.write_bytes(b"longer")
    assert await soon(found) == mark(file)

    waiting = asyncio.create_task(anext(found))  # type: ignore[arg-type]
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    file.unlink()
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    file.write_bytes(b"again")
    assert await asyncio.wait_for(waiting, 5) == mark(file)
    await found.aclose()


async def test_what_changed_before_the_first_look_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert mark(file) is None
    file.write_bytes(b"1")
    found = changes(file, None)
    assert await soon(found) == mark(file)
    await found.aclose()
