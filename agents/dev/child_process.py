"""A server as a child process: it dies with us, its log is kept and listened to, and it is stopped for certain."""

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

__all__ = ["ChildProcess"]

_LINE_BYTES: Final = 65_536
"""What is kept of one line without an end."""

_LOG_BYTES: Final = 8_388_608
"""Size at which a log file is put aside as `.1` and begun anew: a storm of refused connections must not fill a disk."""

# Run in the child before the server. Between fork and exec of a process with threads (gRPC has some) hardly anything
# may be called, hence a small program of its own rather than a hook. PR_SET_PDEATHSIG is 1; it survives exec.
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

    It is sent SIGTERM when we end, however we end (Linux), and not at a Ctrl-C that was meant for us. `on_line` is
    called with each line of its standard error as it comes, `held` are file descriptors that it keeps open to its end.
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

        `environment` is all that it gets; without it, ours.
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
        """The process ID, also after the end."""
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
        """Return the exit code when the process has ended; negative for a signal."""
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
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

    def _heard(self, line: bytes) -> None:
        self._on_line(line.decode("utf-8", "replace").rstrip())


def _opened(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w")
