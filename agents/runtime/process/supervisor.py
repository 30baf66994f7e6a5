"""`Supervisor`: runs one command in several processes, restarts a process that ended, and ends all of them together.

Parent and child hold the ends of a socket pair, and share memory for the messages that the child handles (`in_flight`). The
child writes one byte once it is ready. When its parent has ended, in any way, the child reads the end of the stream and stops
as for SIGTERM. The parent runs none of the code of its children.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from sealbus.agents.runtime.process.in_flight import open_memory
from sealbus.envelopes.backoff import Backoff

Command = Callable[[int, int, int], Sequence[str]]
"""Returns the command of a process, given its number and the descriptors of its line and its memory."""

_READY: Final = b"\x01"
_SIGNALLED: Final = 128
"""A shell adds this to the number of the signal that ended a process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """The rules by which a process that ended by itself is started again."""

    backoff: Backoff = Backoff(initial_interval=0.5, maximum_interval=30.0)
    steady: float = 60.0
    """If a process was ready for so many seconds, its end counts as the first failure again."""
    others_after: float = 10.0
    """Most seconds that the other processes wait for the first to be ready before they start."""


class Supervisor:
    """`processes` children, numbered from 1, each with the command `command(number, line, memory)`.

    `line` is the descriptor of the child's end of its line (`ParentLine`). `memory` is the descriptor of memory that a child
    inherits from its predecessor of the same number (`in_flight`). A child has `grace` seconds to end after SIGTERM. `say`
    gets each line for the operator.
    """

    def __init__(
        self,
        command: Command,
        *,
        processes: int,
        grace: float,
        say: Callable[[str], None],
        restarts: Restarts | None = None,
    ) -> None:
        self._command = command
        self._processes = processes
        self._grace = grace
        self._say = say
        self._restarts = restarts or Restarts()
        self._end = asyncio.Event()
        self._worked = asyncio.Event()
        """Set once a process was ready. The first process shows whether the command can start; the others wait a while."""

    async def run(self, stop: asyncio.Event) -> int:
        """Run until `stop` is set, then send SIGTERM to each process and wait for its end; return the exit code.

        That is the highest code of the processes; for a signal, 128 and its number. A process that ends before any was ready
        ends all: with its own code, or 1 if that was 0. Afterwards each process that ends is started again, without limit.
        """
        async with asyncio.TaskGroup() as group:
            ending = group.create_task(self._end_with(stop), name="supervisor-stop")
            processes = [
                group.create_task(self._keep(number), name=f"process-{number}")
                for number in range(1, self._processes + 1)
            ]
            await asyncio.wait(processes)
            ending.cancel()
        return max(process.result() for process in processes)

    async def run_changing(self, stop: asyncio.Event, changed: Callable[[], Awaitable[str]]) -> int:
        """Run until `stop` is set, and restart all processes after each change, which `changed` awaits and describes.

        A process that ends by itself is not started again before the next change. Returns the highest exit code of the last
        processes.
        """
        code = 0
        while not stop.is_set():
            self._end.clear()
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._end_after(changed), name="supervisor-changes")
                ending = group.create_task(self._end_with(stop), name="supervisor-stop")
                processes = [
                    group.create_task(self._keep_until_changed(number), name=f"process-{number}")
                    for number in range(1, self._processes + 1)
                ]
                await asyncio.wait(processes)
                watching.cancel()
                ending.cancel()
            code = max(process.result() for process in processes)
        return code

    async def _end_with(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._end.set()

    async def _end_after(self, changed: Callable[[], Awaitable[str]]) -> None:
        self._say(f"{await changed()} changed: starting again once what is handled is done")
        self._end.set()

    async def _keep_until_changed(self, number: int) -> int:
        with open_memory() as memory:
            async with await _Child.start(self._command, number, memory) as child:
                code = await child.until(self._end, self._grace)
        if self._end.is_set():
            return code
        self._say(f"process {number} {_describe_end(code)}: it is started again after the next change")
        await self._end.wait()
        return 0

    async def _keep(self, number: int) -> int:
        """Run process `number` again and again until all end, and return its last exit code."""
        with open_memory() as memory:
            return await self._keep_with(number, memory)

    async def _keep_with(self, number: int, memory: int) -> int:
        restarts, failures = self._restarts, 0
        if number > 1:
            await _first_of(self._worked, self._end, within=restarts.others_after)
        while not self._end.is_set():
            async with await _Child.start(self._command, number, memory) as child:
                await _first_of(child.ready, child.ended, self._end)
                if child.ready.is_set():
                    self._worked.set()
                code = await child.until(self._end, self._grace)
            if self._end.is_set():
                return code
            if not self._worked.is_set():
                self._say(
                    f"process {number} {_describe_end(code)}, before it was ready: it is not started again, and all are ended"
                )
                self._end.set()
                return code or 1
            failures = 1 if child.ready_for >= restarts.steady else failures + 1
            wait = restarts.backoff.interval(failures)
            self._say(f"process {number} {_describe_end(code)}: it is started again in {wait:.1f} s")
            await _first_of(self._end, within=wait)
        return 0


class _Child:
    """One process, until it has ended; leaving the context earlier kills it."""

    def __init__(self, process: asyncio.subprocess.Process, line: socket.socket) -> None:
        self._process = process
        self._line = line
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.ready_for = 0.0
        """Seconds from ready to its end."""
        self._since: float | None = None
        self._waiting: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, command: Command, number: int, memory: int) -> Self:
        parent_end, child_end = socket.socketpair()
        try:
            parent_end.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                *command(number, child_end.fileno(), memory),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(child_end.fileno(), memory),
                # Ctrl-C goes to the parent alone, which then sends SIGTERM: a child that got it first could not drain.
                process_group=0,
            )
        except BaseException:
            parent_end.close()
            raise
        finally:
            child_end.close()
        return cls(process, parent_end)

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._line, self._read_line)
        self._waiting = asyncio.create_task(self._wait(), name="process-end")
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()
        if self._process.returncode is None:
            self._process.kill()
        assert self._waiting is not None  # noqa: S101  entered
        await self._waiting

    async def until(self, end: asyncio.Event, grace: float) -> int:
        """Wait until it ends by itself, or end it once `end` is set; return its exit code."""
        await _first_of(self.ended, end)
        if not self.ended.is_set():
            self._process.send_signal(signal.SIGTERM)
            await _first_of(self.ended, within=grace)
            if not self.ended.is_set():
                self._process.kill()
                await self.ended.wait()
            if self._process.returncode == -signal.SIGTERM and not self.ready.is_set():
                # The signal came before the child listened to it, and before it had taken any message.
                return 0
        code = self._process.returncode or 0
        return code if code >= 0 else _SIGNALLED - code

    async def _wait(self) -> None:
        await self._process.wait()
        # Its last byte may not have been read yet.
        self._read_line()
        if self._since is not None:
            self.ready_for = asyncio.get_running_loop().time() - self._since
        self.ended.set()

    def _read_line(self) -> None:
        try:
            data = self._line.recv(64)
        except OSError:
            return
        if data and self._since is None:
            self._since = asyncio.get_running_loop().time()
            self.ready.set()
        elif not data:
            asyncio.get_running_loop().remove_reader(self._line)


class ParentLine:
    """A child's end of the line to its parent: `descriptor` is inherited. Enter on the running loop."""

    def __init__(self, descriptor: int, stop: asyncio.Event) -> None:
        # Processes that the child starts must not hold the line open.
        os.set_inheritable(descriptor, False)
        self._line = socket.socket(fileno=descriptor)
        self._line.setblocking(False)
        self._stop = stop

    def __enter__(self) -> Self:
        """Begin to watch: `stop` is set when the parent has ended."""
        asyncio.get_running_loop().add_reader(self._line, self._read_line)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()

    def ready(self) -> None:
        """Tell the parent that this process is ready; set `stop` if the parent has ended."""
        try:
            self._line.send(_READY)
        except OSError:
            self._stop.set()

    def _read_line(self) -> None:
        try:
            data = self._line.recv(64)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._line)
            self._stop.set()


async def _first_of(*events: asyncio.Event, within: float | None = None) -> None:
    """Return once one of `events` is set, or `within` seconds have passed."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()


def _describe_end(code: int) -> str:
    """Return how a process ended, given the code that a shell would show."""
    if code <= _SIGNALLED:
        return f"ended with code {code}"
    number = code - _SIGNALLED
    return f"was ended by {signal.Signals(number).name if number in set(signal.Signals) else f'signal {number}'}"
