"""A disk that loses what was not synced: `powercut` (deploy/tools/powercut) over a folder, and the moment the power fails."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from stack.tools import find_tool

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["LossyDisk", "require_powercut"]

_SECONDS = 60.0


def require_powercut() -> Path:
    """Return the program; where it or what it needs is missing, skip the test, or fail it in CI."""
    try:
        found, missing = find_tool("powercut"), ""
    except ConfigurationError as error:
        found, missing = Path(), str(error)
    if not missing and (os.geteuid() != 0 or not Path("/dev/fuse").exists()):
        missing = "a file system of its own needs root and /dev/fuse"
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    return found


class LossyDisk:
    """Mounted at `mount` while entered. `folder` is an empty folder of the test; it holds both states of the disk."""

    def __init__(self, folder: Path, mount: Path) -> None:
        self._program = require_powercut()
        self._live, self._kept, self.mount = folder / "live", folder / "kept", mount
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        for folder in (self._live, self._kept, self.mount):
            folder.mkdir(parents=True)
        await self._mount()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._unmount()

    def sync(self) -> None:
        """Hand over everything that is there now, as the kernel does by itself after a while."""
        for path in self.mount.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    async def lose_power(self) -> None:
        """Take the disk back to what was synced. Whoever used it must be dead: nothing is open any more."""
        await self._unmount()
        await asyncio.to_thread(shutil.rmtree, self._live)
        await asyncio.to_thread(shutil.copytree, self._kept, self._live)
        await self._mount()

    async def replace(self) -> None:
        """Put a new, empty disk in its place. Whoever used it must be dead, as for `lose_power`."""
        await self._unmount()
        for folder in (self._live, self._kept):
            await asyncio.to_thread(shutil.rmtree, folder)
            folder.mkdir()
        await self._mount()

    async def _mount(self) -> None:
        process = await asyncio.create_subprocess_exec(
            self._program, self._live, self._kept, self.mount, stdout=asyncio.subprocess.PIPE
        )
        self._process = process
        assert process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            assert await process.stdout.readline() == b"ready\n", "powercut did not start"

    async def _unmount(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(_SECONDS):
            assert await process.wait() == 0, "powercut could not unmount: something is still open"
