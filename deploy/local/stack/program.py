"""One program of the stack: started, awaited until it is healthy, killed or stopped for certain; and one-shot commands."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sealbus.agents.dev.child_process import ChildProcess
from sealbus.envelopes.errors import ConfigurationError
from stack.run_as import as_user

__all__ = ["Program", "output_of"]

READY_SECONDS: Final = 120.0
COMMAND_SECONDS: Final = 120.0
STOP_SECONDS: Final = 10.0
_LOG_SECONDS: Final = 2.0
_LOOK_AGAIN: Final = 0.05
_LAST_WORDS: Final = 20


class Program:
    """A process that may be started again after its end, with the same command; no environment but `environment`.

    `healthy` is asked until it says yes. What the process writes to its standard error goes to `log`. It runs as user
    `uid`, which takes root and which is how SPIRE tells workloads apart, in group `gid`; without them, as ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        healthy: Callable[[], Awaitable[bool]],
        environment: Mapping[str, str],
        name: str = "",
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        self.name: Final = name or Path(command[0]).name
        self.log: Final = log
        self._command = (*as_user(uid, gid), *command)
        self._healthy = healthy
        self._environment = {"PATH": os.environ.get("PATH", os.defpath), **environment}
        self._said: deque[str] = deque(maxlen=_LAST_WORDS)
        self._child: ChildProcess | None = None
        self._draining: asyncio.Task[None] | None = None

    @property
    def said(self) -> tuple[str, ...]:
        """The last lines that it wrote to its standard error since it was started."""
        return tuple(self._said)

    @property
    def pid(self) -> int:
        """The process ID; 0 if it does not run."""
        return self._child.pid if self._child is not None else 0

    async def start(self) -> None:
        """Start and return when it is healthy; raise `ConfigurationError` with its last words if it does not get so."""
        if self._child is not None:
            raise ConfigurationError(f"{self.name} runs already")
        self._said.clear()
        self._child = child = await ChildProcess.start(
            self._command, log=self.log, on_line=self._said.append, environment=self._environment
        )
        self._draining = asyncio.create_task(child.drain())
        ended = asyncio.create_task(child.wait())
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._until_healthy(ended)
        except TimeoutError as error:
            await self.stop()
            raise self._failure(f"is not healthy in {READY_SECONDS:g} s") from error
        except BaseException:
            await self.stop()
            raise
        finally:
            ended.cancel()

    async def wait(self) -> int:
        """Return the exit code once the process has ended, by whatever cause; 0 if it does not run."""
        return await self._child.wait() if self._child is not None else 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._child is not None:
            self._child.signal(number)

    async def stop(self) -> None:
        """End it in an orderly way, and with SIGKILL if it takes over 10 s; nothing if it does not run."""
        await self._end(lambda child: child.stop(STOP_SECONDS))

    async def kill9(self) -> None:
        """Kill it as a crash would."""
        await self._end(ChildProcess.kill)

    async def _until_healthy(self, ended: asyncio.Task[int]) -> None:
        while not await self._healthy():
            if ended.done():
                raise self._failure(f"ended at once ({ended.result()})")
            # There is no event for a socket that is not there yet.
            await asyncio.wait({ended}, timeout=_LOOK_AGAIN)

    async def _end(self, end: Callable[[ChildProcess], Awaitable[None]]) -> None:
        child, self._child = self._child, None
        draining, self._draining = self._draining, None
        if child is not None:
            await end(child)
        if draining is not None:
            # The log ends with the process, unless that leaves a child behind which has it, too.
            await asyncio.wait({draining}, timeout=_LOG_SECONDS)
            draining.cancel()

    def _failure(self, what: str) -> ConfigurationError:
        said = next((line for line in reversed(self._said) if line), "it said nothing")
        return ConfigurationError(f"{self.name} {what}: {said}; see {self.log.parent}")


async def output_of(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    within: float = COMMAND_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> bytes:
    """Run `command` to its end and return its output. `environment` is all that it gets; without it, ours.

    Raises `ConfigurationError` with the last line that it said if it fails or takes over `within` seconds.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    name = " ".join([Path(command[0]).name, *command[1:3]])
    try:
        async with asyncio.timeout(within):
            out, said = await process.communicate(stdin)
    except TimeoutError as error:
        raise ConfigurationError(f"{name}: no answer in {within:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = (said or out).decode("utf-8", "replace").strip().splitlines()
        raise ConfigurationError(f"{name}: {lines[-1] if lines else f'exit code {process.returncode}'}")
    return out
