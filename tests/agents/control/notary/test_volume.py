"""The room that the log has left: that of its file system, for a process without privileges."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lab import until

from sealbus.agents.control.notary.volume import watch_volume
from sealbus.bus.telemetry import Counters


def figures(counters: Counters) -> dict[str, float]:
    rows = [line.split() for line in counters.render().splitlines() if line.startswith("sealbus_notary_volume_")]
    return {name.removeprefix("sealbus_notary_volume_"): float(value) for name, value in rows}


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Counters]:
    counters = Counters()
    watching = asyncio.create_task(watch_volume(folder, counters, every=0.01))
    try:
        yield counters
    finally:
        watching.cancel()
        await asyncio.wait({watching})
        assert watching.cancelled()


class Disk:
    """Takes the place of `os.statvfs` with a disk of 1,000 blocks, of which 50 are kept for root."""

    def __init__(self) -> None:
        self.free = 300
        self.works = True
        self.asked: set[Path] = set()

    def __call__(self, path: Path) -> os.statvfs_result:
        self.asked.add(path)
        if not self.works:
            raise OSError(5, "Input/output error")
        # Preferred block size, block size, blocks, free blocks, those for everybody; then what is not read.
        return os.statvfs_result((65_536, 4_096, 1_000, self.free, self.free - 50, 0, 0, 0, 0, 255))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr("os.statvfs", made)
    return made


async def test_size_and_what_is_free_are_shown_and_read_again(tmp_path: Path, disk: Disk) -> None:
    async with watched(tmp_path) as counters:
        await until(lambda: figures(counters) == {"bytes": 4_096_000, "free_bytes": 250 * 4_096})
        disk.free = 60
        await until(lambda: figures(counters)["free_bytes"] == 10 * 4_096)
    assert disk.asked == {tmp_path}


@pytest.mark.parametrize("path", ["log", "later/log"])
async def test_a_folder_that_is_not_made_yet_counts_as_the_one_that_it_will_be_in(
    tmp_path: Path, disk: Disk, path: str
) -> None:
    async with watched(tmp_path / path):
        await until(lambda: disk.asked == {tmp_path})
        (tmp_path / path).mkdir(parents=True)
        await until(lambda: tmp_path / path in disk.asked)


async def test_what_cannot_be_read_is_not_shown_as_it_was(tmp_path: Path, disk: Disk) -> None:
    async with watched(tmp_path) as counters:
        await until(lambda: len(figures(counters)) == 2)
        disk.works = False
        await until(lambda: figures(counters) == {})
        disk.works = True
        await until(lambda: len(figures(counters)) == 2)


async def test_a_real_disk(tmp_path: Path) -> None:
    async with watched(tmp_path) as counters:
        await until(lambda: len(figures(counters)) == 2)
        shown = figures(counters)
    assert 0 <= shown["free_bytes"] <= shown["bytes"]
    state = os.statvfs(tmp_path)
    assert shown["bytes"] == state.f_blocks * state.f_frsize
