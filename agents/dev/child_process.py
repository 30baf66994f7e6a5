"""A server as a child process: it dies with its parent, its log is stored and read, and it is stopped reliably."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Final

_LINE_BYTES: Final = 65_536
"""Bytes kept of a line that does not end."""

_LOG_BYTES: Final = 8_388_608
"""Bytes of a log file before it is moved to `.1` and a new file begins: a storm of refused connections must not fill a
disk."""

# Run in the child before the server. Between fork and exec of a process with threads (gRPC has some) few functions are safe
# to call, so this is a small program instead of a hook. PR_SET_PDEATHSIG is 1; it survives exec.
_DIE_WITH_PARENT: Final = """
import os, signal, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent ended first")
os.execv(command[0], command)
"""


class ChildProcess:
    """One process, made by `start`. Give `drain` and `wait` to a task each; end it with `stop`.

    It gets SIGTERM when this process ends for any reason (Linux), but not at a Ctrl-C for this process. `on_line` is called
    with each line of its standard error; `held` are file descriptors that it keeps open until it ends.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path, on_line: Callable[[str], None]) -> None:
        self._process = process
        self._log = log
        self._on_line = on_line

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        log: Path,
        on_line: Callable[[str], None],
        held: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> ChildProcess:
        """Start `command`, whose first word is an absolute path, with no input and its output in the file `log`.

        `environment` is its whole environment; without it, ours.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=held,
            env=environment,
            start_new_session=True,
        )
        return cls(process, log, on_line)

    @property
    def pid(self) -> int:
        """The process ID, also after its end."""
        return self._process.pid

    async def drain(self) -> None:
        """Copy the log to its file, readable for the owner only, until the process closes it."""
        stream = self._process.stderr
        assert stream is not None  # noqa: S101  it is a pipe, see start
        rest = b""
        with contextlib.ExitStack() as files:
            file = files.enter_context(_opened(self._log))
            while chunk := await stream.read(_LINE_BYTES):
                file.write(chunk)
                if file.tell() > _LOG_BYTES:
                    file.close()
                    await asyncio.to_thread(self._log.replace, self._log.with_name(f"{self._log.name}.1"))
                    file = files.enter_context(_opened(self._log))
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._heard(line)
                rest = rest[:_LINE_BYTES]
            if rest:
                self._heard(rest)

    async def wait(self) -> int:
        """Wait for the process to end and return its exit code; negative for a signal."""
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process is still running."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def stop(self, grace: float) -> None:
        """Send SIGTERM, after `grace` seconds SIGKILL, and return when the process is gone."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self._process.wait()

    async def kill(self) -> None:
        """Send SIGKILL and return when the process is gone."""
        # No second signal: signalling an ended process may reap it, and `wait` then does not get its exit code.
        self.signal(signal.SIGKILL)
        await self._process.wait()

    def _heard(self, line: bytes) -> None:
        self._on_line(line.decode("utf-8", "replace").rstrip())


def _opened(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
