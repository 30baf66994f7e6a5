"""Runs the roles of one control process side by side, until it is told to stop or one of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sealbus.agents.control.role import Role
from sealbus.envelopes.errors import ConfigurationError

__all__ = ["Control"]


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
