"""The stack behind the stage: the demonstration's scenes on processes that somebody else has started."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from sealbus.agents.dev.demo.backstage import STRONG, WITHIN, change_document
from sealbus.agents.dev.idp.access import fetch_token, read_access
from sealbus.agents.runtime.open import open_engine, open_identity
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.sidecar import SidecarEngine
from stack.roster import AGENTS, PEOPLE
from stack.running import push_policy
from stack.site import Site

__all__ = ["StackBackstage"]

_LOOK_EVERY: Final = 0.05


class StackBackstage:
    """A running stack at `site`, whose OPAs have the process IDs `opas`; must be root, as who started it."""

    def __init__(self, site: Site, opas: Mapping[str, int]) -> None:
        self.settings: Settings = load_settings(environment=site.environment(PEOPLE[0]))
        self.resource = site.resource
        self.database: Path = site.database
        self._site = site
        self._opas = dict(opas)

    def token(self, user: str, *, session: str, audience: str, expires_in: int) -> str:
        """Return an access token of the stack's identity provider, as `sealbus token` does."""
        asked = {"user": user, "session": session, "resource": audience, "expires_in": str(expires_in)}
        return str(fetch_token(read_access(self._site.access), asked)["access_token"])

    async def approver(self, user: str, *, acr: str = STRONG) -> str:
        """Return an access token of somebody who has just logged in to approve something."""
        asked = {"user": user, "scope": "sealbus:approve", "acr": acr, "login_age": "0"}
        answer = await asyncio.to_thread(fetch_token, read_access(self._site.access), asked)
        return str(answer["access_token"])

    async def change_data(self, document: str, change: Callable[[dict[str, object]], None]) -> None:
        """Change one data document of the policy folder, push it, and wait until every OPA decides by it."""
        change_document(self._site.policy, document, change)
        revision = await push_policy(self._site)
        async with asyncio.timeout(WITHIN), self._engines() as engines:
            for engine in engines:
                while (await engine.status()).revision != revision:  # noqa: ASYNC110  OPA has no event for it
                    await asyncio.sleep(_LOOK_EVERY)

    @asynccontextmanager
    async def _engines(self) -> AsyncGenerator[Sequence[PolicyEngine], None]:
        """Open what asks each OPA."""
        async with AsyncExitStack() as stack:
            identity = await stack.enter_async_context(open_identity("shop-web", self.settings))
            central = await stack.enter_async_context(open_engine(self.settings.policy, identity))
            beside = [SidecarEngine(self._site.sidecar(one)) for one in AGENTS if one.engine == "sidecar"]
            yield [central, *[await stack.enter_async_context(one) for one in beside]]

    async def stop_policy(self) -> None:
        """Stop every OPA where it stands: it answers nobody."""
        self._signal(signal.SIGSTOP)

    async def start_policy(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._opas.values():
            os.kill(pid, number)
