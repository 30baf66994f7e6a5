"""The tasks that each user has submitted to an agent through A2A, with their contexts, for all processes of the edge.

They are stored on the bus at `state.<edge>.a2a.task.<user>.<agent>.<task>`, as long as owners of tasks. A value holds the
context's id, and is signed. It grants no access: the owner of a task is checked each time
(`sealbus.agents.edge.v1.task_owners`).
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.task_owners import TaskOwners
from sealbus.agents.runtime.node import Node
from sealbus.bus.stream_names import STATE
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import is_own, signed
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError

MOST_LISTED: Final = 1_024
"""Most tasks of one user and agent in a list: the newest."""
_TYPE: Final = "application/vnd.sealbus.a2a-task.v1"
_VERSION: Final = 1
_BYTES: Final = 4_096
_WITHIN: Final = 10.0


class KeptTasks:
    """The tasks of one edge's users."""

    def __init__(self, node: Node, owners: TaskOwners) -> None:
        self._node = node
        self._owners = owners
        self._keyed = KeyValue(node.transport)

    async def keep(self, task: str, context_id: str, *, agent: str, token: AccessToken) -> None:
        """Remember a task of the user of `token`; raise `BusUnavailable` or `IdentityUnavailable`."""
        value = encode([_VERSION, context_id, task, self._node.site.bus_clock()], text_bytes=_BYTES)
        parts = signed(value, _TYPE, self._node.identity.sealer())
        await self._keyed.create(self._place(agent, token) + task, encode([*parts], text_bytes=_BYTES))

    async def context_id(self, task: str, *, agent: str, token: AccessToken) -> str:
        """Return the context of a task: its own id if it was submitted without a context. Raises `BusUnavailable`."""
        stored = await self._keyed.get(self._place(agent, token) + task)
        return (self._context(stored.payload, task) if stored is not None else None) or task

    async def newest(self, *, agent: str, token: AccessToken) -> dict[str, str]:
        """Return the contexts of the user's newest tasks by their ids, the newest first. Raises `BusUnavailable`."""
        place = self._place(agent, token)
        contexts: dict[str, str] = {}
        try:
            async with asyncio.timeout(_WITHIN), aclosing(self._node.transport.read(STATE, [place + "*"])) as batches:
                async for batch in batches:
                    for entry in batch:
                        task = entry.subject.removeprefix(place)
                        if (context_id := self._context(entry.payload, task)) is not None:
                            contexts[task] = context_id
        except TimeoutError as error:
            raise BusUnavailable(f"{STATE} was not read within {_WITHIN:g} s") from error
        # The ids begin with the time (RFC 9562, section 5.7).
        return {task: contexts[task] for task in sorted(contexts, reverse=True)[:MOST_LISTED]}

    def _context(self, payload: bytes, task: str) -> str | None:
        """Return the context in a value that this edge has signed for `task`; None for any other bytes."""
        node = self._node
        try:
            stored: Value = decode(payload, text_bytes=_BYTES, step=0)
            parts = [part for part in stored if isinstance(part, bytes)] if isinstance(stored, list) else []
            match decode(parts[0], text_bytes=_BYTES, step=0):
                case [int(version), str(context_id), str(named), int(at)] if (version, named) == (_VERSION, task):
                    if is_own(parts, _TYPE, own=node.own, at=at, trust=node.trust(), caches=node.caches):
                        return context_id
        except (LookupError, EnvelopeError):
            return None
        return None

    def _place(self, agent: str, token: AccessToken) -> str:
        return f"state.{self._node.token}.a2a.task.{self._owners.place(token)}.{agent}."
