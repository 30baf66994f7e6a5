from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from sealbus.agents.dev import child_process as child_module
from sealbus.agents.dev.child_process import ChildProcess

SECONDS = 60.0


async def run(tmp_path: Path, script: str) -> tuple[ChildProcess, list[str]]:
    """Run a shell script to its end and return what was heard of it."""
    heard: list[str] = []
    child = await ChildProcess.start(["/bin/sh", "-c", script], log=tmp_path / "log", on_line=heard.append)
    async with asyncio.timeout(SECONDS):
        await child.drain()
        await child.wait()
    return child, heard


async def test_lines_are_heard_and_kept_in_a_private_file(tmp_path: Path) -> None:
    child, heard = await run(tmp_path, "echo out; echo one >&2; echo two >&2; printf 'no end' >&2; exit 7")
    assert heard == ["one", "two", "no end"]
    assert (tmp_path / "log").read_text() == "one\ntwo\nno end"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
    assert await child.wait() == 7


async def test_bytes_that_are_no_text_are_heard_all_the_same(tmp_path: Path) -> None:
    _, heard = await run(tmp_path, r"printf '\377\376\n' >&2")
    assert heard == ["��"]


async def test_a_line_that_never_ends_is_cut(tmp_path: Path) -> None:
    _, heard = await run(tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x >&2")
    assert len(heard) == 1
    assert 0 < len(heard[0]) <= 65_536


async def test_a_long_log_is_put_aside_and_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_LOG_BYTES", 100)
    script = (
        "i=0; while [ $i -lt 3 ]; do head -c 99 /dev/zero | tr '\\0' x >&2; echo >&2; i=$((i+1)); done; echo end >&2"
    )
    _, heard = await run(tmp_path, script)
    assert heard[-1] == "end"
    assert (tmp_path / "log.1").exists()
    assert (tmp_path / "log").stat().st_size <= 100 + len("end\n")


async def test_a_child_that_listens_is_stopped_by_sigterm(tmp_path: Path) -> None:
    child = await ChildProcess.start(["/bin/sleep", "600"], log=tmp_path / "log", on_line=lambda _: None)
    async with asyncio.timeout(SECONDS):
        await child.stop(grace=SECONDS)
    assert await child.wait() == -signal.SIGTERM
    child.signal(signal.SIGHUP)  # nobody there, no error


async def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    ready = asyncio.Event()
    script = "trap '' TERM; echo ready >&2; while :; do sleep 0.05; done"
    child = await ChildProcess.start(["/bin/sh", "-c", script], log=tmp_path / "log", on_line=lambda _: ready.set())
    drain = asyncio.ensure_future(child.drain())
    async with asyncio.timeout(SECONDS):
        await ready.wait()
        await child.stop(grace=0.05)
        await drain
    assert await child.wait() == -signal.SIGKILL


async def test_a_child_is_killed_by_one_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one may reap it before its exit code is read; then that is 255, whatever it was."""
    child = await ChildProcess.start(["/bin/sh", "-c", "exec sleep 600"], log=tmp_path / "log", on_line=print)
    sent: list[int] = []
    send = child._process.send_signal

    def noted(number: int) -> None:
        sent.append(number)
        send(number)

    monkeypatch.setattr(child._process, "send_signal", noted)
    draining = asyncio.create_task(child.drain())
    async with asyncio.timeout(SECONDS):
        await child.kill()
        await draining
    assert (sent, await child.wait()) == ([signal.SIGKILL], -signal.SIGKILL)


async def test_a_child_has_no_input_and_a_session_of_its_own(tmp_path: Path) -> None:
    child, heard = await run(tmp_path, "cat >&2; echo $$ $(ps -o sid= -p $$) >&2")
    assert heard[0].split() == [str(child.pid)] * 2


PARENT = """
import asyncio, pathlib, sys
from sealbus.agents.dev.child_process import ChildProcess

async def main():
    child = await ChildProcess.start(
        ["/bin/sh", "-c", "echo $$ >&2; exec sleep 600"],
        log=pathlib.Path(sys.argv[1]),
        on_line=lambda line: print(line, flush=True),
        held=[int(sys.argv[2])],
    )
    await child.drain()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
async def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    # The pipe's other end is open in the parent and the child only: it ends when both are gone.
    reading, writing = os.pipe()
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", PARENT, str(tmp_path / "log"), str(writing)),
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[writing],
    )
    os.close(writing)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(reading, gone.set)
    child = 0
    try:
        async with asyncio.timeout(SECONDS):
            assert parent.stdout is not None
            child = int(await parent.stdout.readline())
            parent.kill()
            await parent.wait()
            await gone.wait()
    finally:
        asyncio.get_running_loop().remove_reader(reading)
        os.close(reading)
        if child and not gone.is_set():
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
async def test_a_child_whose_parent_ended_first_does_not_start() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", "-c", child_module._DIE_WITH_PARENT, "1", "/bin/echo", "started"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        out, error = await process.communicate()
    assert (out, error, process.returncode) == (b"", b"the parent ended first\n", 1)


async def test_its_environment_is_ours_or_exactly_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALBUS_TEST_SECRET", "ours")
    for environment, expected in ((None, "ours"), ({"PATH": os.environ["PATH"]}, "none")):
        heard: list[str] = []
        child = await ChildProcess.start(
            ["/bin/sh", "-c", "echo ${SEALBUS_TEST_SECRET:-none} >&2"],
            log=tmp_path / "log",
            on_line=heard.append,
            environment=environment,
        )
        async with asyncio.timeout(SECONDS):
            await child.drain()
            await child.wait()
        assert heard == [expected]
