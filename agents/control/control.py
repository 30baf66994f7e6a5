"""Runs the roles of one control process together, until it is told to stop or one of them ends.

A role is opened, runs until it is cancelled, and reports its problems. Roles are opened one after the other, while earlier
roles already run: no other role can connect to NATS before the callout answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, Protocol

from sealbus.envelopes.errors import ConfigurationError

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.telemetry import Counters

CONTROL: Final = "control"
"""The name of the control process's workload."""
STARTING: Final = "starting"


class Role(Protocol):
    """One part of the control process, already entered."""

    @property
    def problem(self) -> str:
        """Why this role cannot do its work now, in a few words that quote no message; empty if it can."""
        ...

    async def run(self) -> None:
        """Do the role's work until cancelled. Raises if retrying cannot help: the process then ends."""


class Opener(Protocol):
    """The opening of a role by the settings: connections, keys and files are open while it is entered."""

    def __call__(self, settings: Settings, *, counters: Counters) -> AbstractAsyncContextManager[Role]:
        """Return the role to enter, which raises `SealbusError` with one line if something is missing."""
        ...


class Control:
    """The roles of this process, by name, in the order in which they are opened."""

    def __init__(self, openers: Mapping[str, Callable[[], AbstractAsyncContextManager[Role]]]) -> None:
        if not openers:
            raise ConfigurationError("no role to run: name at least one")
        self.started = asyncio.Event()
        """Set once every role runs."""
        self._openers = dict(openers)
        self._roles: dict[str, Role] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Open and run every role until `stop` is set.

        A role that ends early or raises ends the others, and its error is raised. Half a control process would look healthy
        from outside, while an ended process is started again.
        """
        async with asyncio.TaskGroup() as group:
            running: dict[str, asyncio.Task[None]] = {}
            for name, opener in self._openers.items():
                entered = asyncio.Event()
                running[name] = group.create_task(self._run(name, opener, entered, stop), name=f"role-{name}")
                await _first_of(entered, stop)
                if stop.is_set():
                    break
            else:
                self.started.set()
            await stop.wait()
            for name, task in running.items():
                # An open role stops by itself, and closes in order.
                if name not in self._roles:
                    task.cancel()

    def not_ready(self) -> dict[str, str]:
        """Return why roles cannot do their work, by role; empty if all can. Answers from memory."""
        problems = {name: self._roles[name].problem if name in self._roles else STARTING for name in self._openers}
        return {name: problem for name, problem in problems.items() if problem}

    async def _run(
        self,
        name: str,
        opener: Callable[[], AbstractAsyncContextManager[Role]],
        entered: asyncio.Event,
        stop: asyncio.Event,
    ) -> None:
        async with opener() as role, asyncio.TaskGroup() as group:
            self._roles[name] = role
            entered.set()
            working = group.create_task(role.run(), name=f"working-{name}")
            stopping = group.create_task(stop.wait(), name=f"stopping-{name}")
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
            ended = working.done()
            working.cancel()
            stopping.cancel()
        if ended:
            raise ConfigurationError(f"the role {name} has ended while the process runs")


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
