"""The demo's backstage: the operator of the shop, who can change its policy and stop the policy engine.

The scenes are the same in each setting: the development environment in one process, or a deployment of real components.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from sealbus.agents.dev.environment import Environment
from sealbus.agents.dev.users import approver_token
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.settings.settings import Settings

STRONG = "urn:example:silver"
"""The `acr` that the starter policy requires of a manager who approves."""

WITHIN = 60.0
"""Seconds that any step may take before the demonstration gives up."""

_LOOK_EVERY = 0.02
"""Seconds between two reads of the revision of an engine, which does not notify."""


class Backstage(Protocol):
    """A running shop: the example agents as workers, the edge, an identity provider, and a policy that can be changed."""

    @property
    def settings(self) -> Settings:
        """The deployment's settings."""
        ...

    @property
    def resource(self) -> str:
        """The edge's URL."""
        ...

    @property
    def database(self) -> Path:
        """The file that the example agents share."""
        ...

    def token(self, user: str, *, session: str, audience: str, expires_in: int) -> str:
        """Return an access token as a login of `user` would issue it."""
        ...

    async def approver(self, user: str, *, acr: str = STRONG) -> str:
        """Return an access token of `user`, who has just logged in by `acr` to approve a task."""
        ...

    async def change_data(self, document: str, change: Callable[[dict[str, object]], None]) -> None:
        """Change one data document of the policy, and return once every worker decides by it."""
        ...

    async def stop_policy(self) -> None:
        """Stop the policy engine of the workers."""
        ...

    async def start_policy(self) -> None:
        """Start the policy engine of the workers again."""
        ...


class DevBackstage:
    """The development environment, with the workers' nodes in this process."""

    def __init__(self, environment: Environment, policy: Path, database: Path) -> None:
        self.settings = environment.settings
        self.resource = environment.edge.front.resource
        self.database = database
        self.workers: dict[str, Node] = {}
        self.environment = environment
        self._policy = policy

    def token(self, user: str, *, session: str, audience: str, expires_in: int) -> str:
        """Return an access token of the development IdP."""
        return self.environment.idp.token(user, session=session, audience=audience, expires_in=expires_in)

    async def approver(self, user: str, *, acr: str = STRONG) -> str:
        """Return an access token of the development IdP."""
        return await asyncio.to_thread(lambda: approver_token(self.settings, user, acr=acr))

    async def change_data(self, document: str, change: Callable[[dict[str, object]], None]) -> None:
        """Change one data document of the policy folder, build it again, and wait for every worker's engine."""
        change_document(self._policy, document, change)
        revision = await asyncio.to_thread(self.environment.publish_policy)
        async with asyncio.timeout(WITHIN):
            for node in self.workers.values():
                while (await node.engine.status()).revision != revision:  # noqa: ASYNC110  an engine has no event for it
                    await asyncio.sleep(_LOOK_EVERY)

    async def stop_policy(self) -> None:
        """Stop OPA itself, or the embedded engine of each worker."""
        for decider in self._deciders():
            await decider.__aexit__(None, None, None)

    async def start_policy(self) -> None:
        """Start them again."""
        for decider in self._deciders():
            await decider.__aenter__()

    def _deciders(self) -> list[AbstractAsyncContextManager[object]]:
        opa = self.environment.opa
        return [opa] if opa is not None else [node.engine for node in self.workers.values()]


def change_document(policy: Path, document: str, change: Callable[[dict[str, object]], None]) -> Mapping[str, object]:
    """Change one document of the registry in the policy folder, and return it."""
    path = policy / "sealbus" / "registry" / document / "data.json"
    data: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return data
