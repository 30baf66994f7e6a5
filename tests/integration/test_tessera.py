"""Our log as Tessera reads it: its fsck knows tlog-tiles alone, fetches every tile and entry, and computes the root."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from stack.tools import find_tool
from support.grown_log import SIGNER, GrownLog
from support.log_site import serving

from sealbus.envelopes.errors import ConfigurationError

pytestmark = pytest.mark.tessera

SIZES = [3, 200, 256, 70_000]
"""The last has a partial tile at each of three levels."""


def _required() -> Path:
    try:
        return find_tool("tessera-fsck")
    except ConfigurationError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


async def is_sound(folder: Path, address: str) -> bool:
    """Return what Tessera says of the log at `address`. After a fault it goes on without an end, so it is ended here."""
    program, key = _required(), folder / "log.vkey"
    key.write_text(SIGNER.verifier.text)
    process = await asyncio.create_subprocess_exec(
        program, "--ui=false", "-v=1", f"--storage_url={address}", f"--public_key={key}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    text = ""
    try:
        async with asyncio.timeout(120):
            async for line in process.stdout:
                text += line.decode()
                if "Successfully fsck'd log with size 70000" in text:
                    return True
                if ":Invalid" in text or "fsck failed" in text:
                    return False
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    raise AssertionError(text)


async def test_the_log_is_read_where_it_is_served_and_out_of_its_folder(tmp_path: Path) -> None:
    log = GrownLog.at(tmp_path / "log", SIZES)
    async with serving(log.folder, "entries = true", "rate = 100000") as (server, _):
        served = f"http://127.0.0.1:{server.port}/"
        assert await is_sound(tmp_path, served)
        assert await is_sound(tmp_path, f"file://{log.folder}/")
        tile = log.folder / "tile" / "entries" / "100"
        data = tile.read_bytes()
        tile.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
        assert not await is_sound(tmp_path, served)
