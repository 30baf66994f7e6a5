"""A witness that is killed between any two lines of its work, or loses its power, forgets nothing that it gave out."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from support import witness_killed
from support.plain_log import PlainLog, leaf
from support.ports import held_port
from support.power_cut import LossyDisk
from support.witness_killed import FORK, KNOWN, LOG, SIGNERS
from support.witness_site import settings_text, witness_keys

from sealbus.agents.control.witness.folder import CosignedLog, locked_folder
from sealbus.agents.control.witness.submission import SubmissionRefused, open_submission
from sealbus.envelopes.log.cosignature import verify_cosignatures
from sealbus.envelopes.log.note import parse_note

AT_ONCE = 4
KILLS = 4
BEGIN, END = 9, 20


async def killed_at(line: int, folder: Path) -> tuple[int, bytes]:
    """Return how the process that was killed at `line` ended, and which cosignatures it gave out."""
    arguments = [witness_killed.__file__, str(folder), str(BEGIN), str(END), str(line)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(witness_killed.__file__).parents[1])},
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out


def begun(folder: Path) -> Path:
    """Let a witness cosign the first checkpoint."""
    with locked_folder(folder):
        CosignedLog(KNOWN, folder, SIGNERS).add(open_submission(LOG.request(0, BEGIN), {LOG.origin: KNOWN}), 900)
    return folder


def check_memory(folder: Path, given_out: bytes) -> None:
    """Check that the witness is at the old or the new checkpoint, at the new one if it gave it out, and then goes on."""
    with locked_folder(folder):
        assert [path.name for path in folder.glob(".*")] == []
        cosigned = CosignedLog(KNOWN, folder, SIGNERS)
        assert cosigned.checkpoint is not None
        size = cosigned.checkpoint.size
        assert size in ({END} if given_out else {BEGIN, END})
        assert cosigned.checkpoint.root == LOG.root(size)
        for forged in (FORK.request(size, size), FORK.request(size, 25), FORK.request(0, 25)):
            with pytest.raises(SubmissionRefused):
                cosigned.add(open_submission(forged, {LOG.origin: KNOWN}), 2_000)
        lines = cosigned.add(open_submission(LOG.request(size, 25), {LOG.origin: KNOWN}), 2_000)
        assert len(verify_cosignatures(parse_note(LOG.note(25) + lines.encode()), [s.verifier for s in SIGNERS])) == 2


@pytest.mark.slow
async def test_killed_between_any_two_lines(tmp_path: Path) -> None:
    line, sizes, ended = 0, set[bool](), False
    while not ended:
        folders = [begun(tmp_path / str(number)) for number in range(line, line + AT_ONCE)]
        results = await asyncio.gather(*(killed_at(line + at, folder) for at, folder in enumerate(folders)))
        for folder, (status, out) in zip(folders, results, strict=True):
            assert status in (0, -signal.SIGKILL)
            ended = ended or status == 0
            sizes.add((folder / KNOWN.origin_hash).read_bytes().startswith(LOG.text(END).encode()))
            check_memory(folder, out)
        line += AT_ONCE
    assert line > AT_ONCE * 5
    assert sizes == {False, True}


@pytest.mark.slow
async def test_what_was_given_out_survives_a_power_cut(tmp_path: Path) -> None:
    async with LossyDisk(tmp_path / "disk", tmp_path / "mount") as disk:
        folder = disk.mount / "witness"
        await asyncio.to_thread(begun, folder)
        await asyncio.to_thread(disk.sync)
        with locked_folder(folder):
            cosigned = CosignedLog(KNOWN, folder, SIGNERS)
            submission = open_submission(LOG.request(BEGIN, END), {LOG.origin: KNOWN})
            given_out = await asyncio.to_thread(cosigned.add, submission, 1_000)
        await disk.lose_power()
        await asyncio.to_thread(check_memory, folder, given_out.encode())


@asynccontextmanager
async def witness_process(
    settings: Path, port: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx2.AsyncClient]]:
    """Run `sealbus control run --roles witness` until it is killed or left."""
    command = ("-m", "sealbus", "control", "run", "--roles", "witness", "--config", str(settings), "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert b"ready" in await process.stdout.readline()
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.slow
async def test_a_process_that_is_killed_while_logs_ask_it(tmp_path: Path) -> None:
    port, given_out = held_port(), 0
    witness_keys(tmp_path)
    settings = tmp_path / "sealbus.toml"
    settings.write_text(settings_text({LOG.origin: LOG.signer.verifier.text}, port=port))
    log, fork = (PlainLog(LOG.signer, [leaf(number, branch) for number in range(1_000)]) for branch in ("", "fork"))
    for kill in range(KILLS):
        async with witness_process(settings, port) as (process, client):
            held = await client.get(f"/{KNOWN.origin_hash}/checkpoint")
            size = int(held.text.split("\n")[1]) if held.status_code == 200 else 0
            assert size >= given_out
            assert not size or held.text.startswith(log.text(size))
            if size:
                forged = await client.post("/add-checkpoint", content=fork.request(size, size + 1))
                assert forged.status_code == 422
            first = size
            with suppress(httpx2.TransportError):
                while True:
                    answer = await client.post("/add-checkpoint", content=log.request(size, size + 1))
                    assert answer.status_code == 200
                    given_out = size = size + 1
                    if size == first + 3:
                        # Somewhere in one of the next requests.
                        asyncio.get_running_loop().call_later(0.003 * kill, process.kill)
            await process.wait()
    assert given_out >= 3 * KILLS


@pytest.mark.slow
async def test_a_second_process_does_not_start(tmp_path: Path) -> None:
    port = held_port()
    witness_keys(tmp_path)
    settings = tmp_path / "sealbus.toml"
    settings.write_text(settings_text({LOG.origin: LOG.signer.verifier.text}, port=port))
    async with witness_process(settings, port):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sealbus", "control", "run", "--roles", "witness", "--config", str(settings),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await second.communicate()
        assert second.returncode == 1
        assert b"another witness uses" in errors
