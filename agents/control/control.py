"""Runs the roles of one control process side by side, until it is told to stop or one of them ends.

A role is something that runs until it is cancelled, and can say what is wrong with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from sealbus.envelopes.errors import ConfigurationError

if TYPE_CHECKING:
    from sealbus.agents.settings import Settings
    from sealbus.bus.counters import Counters

__all__ = ["Control", "Opener", "Role"]


class Role(Protocol):
    """One part of the control process, entered already."""

    @property
    def problem(self) -> str:
        """Why this role cannot do its work now, in a few words without content; empty where it can."""
        ...

    async def run(self) -> None:
        """Do the role's work until cancelled. Raises where no further try can help: the process then ends."""


class Opener(Protocol):
    """Opens a role by the settings: connections, keys and files are there once it is entered, and closed afterwards."""

    def __call__(self, settings: Settings, *, counters: Counters) -> AbstractAsyncContextManager[Role]:
        """Return the role to enter, which raises `SealbusError` with one line for what is missing."""
        ...


class Control:
    """The entered `roles` of this process, by name."""

    def __init__(self, roles: Mapping[str, Role]) -> None:
        if not roles:
            raise ConfigurationError("no role to run: say at least one")
        self._roles = dict(roles)

    async def run(self, stop: asyncio.Event) -> None:
        """Run every role until `stop` is set.

        A role that ends before, or raises, ends the others and is raised: half a control process would look well to
        whoever watches the process, and the one that started it can start it anew.
        """
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(self._run(name, role), name=f"role-{name}") for name, role in self._roles.items()
            ]
            await stop.wait()
            for task in running:
                task.cancel()

    def not_ready(self) -> dict[str, str]:
        """Return why no further work can be done, by role; empty where all is well. Answers from memory."""
        return {name: problem for name, role in self._roles.items() if (problem := role.problem)}

    async def _run(self, name: str, role: Role) -> None:
        await role.run()
        raise ConfigurationError(f"the role {name} has ended, which it must not while the process runs")
