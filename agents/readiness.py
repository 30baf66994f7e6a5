"""Whether a node can take work now, part by part: what `/readyz` says.

Reasons are shown to whoever may connect there: they name parts and codes, never content. What only deserves to be noted
(the newest policy bundle was refused, and the old one stays in force) does not make a node unready.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sealbus.envelopes.errors import SealbusError
from sealbus.policies.engine import EngineStatus

if TYPE_CHECKING:
    from sealbus.agents.node import Node

__all__ = ["ASK_EVERY", "Readiness"]

_log = logging.getLogger(__name__)

ASK_EVERY = 2.0
"""Seconds between two questions to the policy engine; a sidecar may have gone since the last decision."""


ASK_SECONDS = 1.0
"""For the server's answer, which comes from its memory."""

_DISK = "its disk is full or failing; make room, then restart it, for it tries no failed stream again"
"""Seen with nats-server 2.15.1: such a stream takes nothing until the server was restarted, and publishes get no answer."""


class Readiness:
    """Looks at one entered node. Await `run` to keep what the policy engine says of itself current."""

    def __init__(self, node: Node, *, every: float = ASK_EVERY) -> None:
        self._node = node
        self._every = every
        self._engine: EngineStatus | None = None
        self._unstored = ""

    async def run(self) -> None:
        """Ask the policy engine for its status, and NATS where it stores nothing, now and again, until cancelled."""
        while True:
            self._unstored = await self._looked_at_stores()
            found = await self._node.engine.status()
            before = self._engine.problem if self._engine is not None else ""
            if found.revision and found.problem and found.problem != before:
                self._node.counters.add("sealbus_policy_bundle_refused_total", engine=found.engine)
            if self._engine is not None and (found.problem, found.missed) != (
                self._engine.problem,
                self._engine.missed,
            ):
                _log.info(
                    "policy engine %s: %s",
                    found.engine,
                    "has a problem" if found.problem or found.missed else "well again",
                )
            self._engine = found
            await asyncio.sleep(self._every)

    def reasons(self) -> dict[str, str]:
        """Return why no work can be taken now, by part; empty where it can. Answers from memory."""
        reasons = {}
        clocks = self._node.clocks
        if clocks.ahead is not None and (skew := clocks.problem) is not None:
            # Whether an SVID has ended is not to be told by such a clock.
            reasons["clock"] = str(skew)
        else:
            try:
                self._node.identity.sealer()
            except SealbusError as error:
                reasons["identity"] = str(error.code)
        if not self._node.connected():
            reasons["nats"] = "not connected"
        if self._unstored:
            reasons["disk"] = self._unstored
        if self._engine is None:
            reasons["policy"] = "not asked yet"
        elif not self._engine.revision:
            # Without a revision nothing is decided: the engine does not answer, or has no bundle yet.
            reasons["policy"] = f"{self._engine.engine} engine not ready"
        if problem := self._node.audit.problem:
            reasons["audit"] = problem
        return reasons

    async def _looked_at_stores(self) -> str:
        """Return what nats-server does not store though it answers; empty where it stores, or does not answer either."""
        node = self._node
        # With a spool records count as stored without the stream, and the audit writer notes how far that is behind.
        silent = [token for token in node.outbox.unstored if token != "audit" or node.spool is None]
        if not silent:
            return ""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await node.transport.audit_stream()
        except (SealbusError, TimeoutError):
            return ""
        return f"nats-server answers and does not store {', '.join(f'{token}.*' for token in silent)}: {_DISK}"

    def notes(self) -> dict[str, str]:
        """Return what an operator should look at though work is taken, by part."""
        notes = {}
        engine = self._engine
        if engine is not None and engine.revision and engine.missed:
            notes["policy"] = f"{len(engine.missed)} of the OPAs do not answer, or decide by another revision"
        elif engine is not None and engine.revision and engine.problem:
            notes["policy"] = f"the newest bundle was refused: revision {engine.revision} stays in force"
        if behind := self._node.audit.behind:
            notes["audit"] = behind
        if self._node.policy_problem():
            notes["policy_store"] = "the newest of a part was refused, or the store is not read: see the log"
        return notes
