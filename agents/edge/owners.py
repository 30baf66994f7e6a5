"""Whose task it is: what the edge must know of a task to show it to who submitted it, and to nobody else.

Kept on the bus (`state.<edge>.request.<task id>`), so that any process of the edge can answer, also after a restart. It
holds the handle and a hash of the user, not the user.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from hashlib import sha256
from typing import Final

from sealbus.agents.edge.access_token import AccessToken
from sealbus.agents.edge.errors import EdgeError
from sealbus.agents.handle import TaskHandle
from sealbus.agents.node import Node
from sealbus.bus.keyed import Keyed
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import SECOND

__all__ = ["TaskOwners"]

_ID: Final = re.compile("[0-9a-f]{32}")
_VERSION: Final = 1

FRESH_SECONDS: Final = 5
"""A replica of the stream may be a moment behind the one that took the task: for so long, absence is looked at again."""
_LOOKS: Final = 4
_PAUSE: Final = 0.25


class TaskOwners:
    """Remembers and finds tasks of one edge."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._keyed = Keyed(node.transport)

    async def keep(self, handle: TaskHandle, token: AccessToken) -> None:
        """Remember that `handle` was submitted for the user of `token`. Raises `BusUnavailable`."""
        value = json.dumps({"v": _VERSION, "handle": handle.text, "who": _who(token)}, separators=(",", ":"))
        await self._keyed.create(self._subject(handle.message_id), value.encode())

    async def find(self, task: str, token: AccessToken) -> TaskHandle:
        """Return the task with id `task`; raise 404 if there is none, or if it is another user's."""
        if not _ID.fullmatch(task):
            raise _no_task()
        found = await self._look(task)
        if found is None:
            raise _no_task()
        try:
            value = json.loads(found)
            handle, who = str(value["handle"]), str(value["who"])
            if value["v"] != _VERSION or not hmac.compare_digest(who.encode(), _who(token).encode()):
                raise _no_task()
            return self._node.sending.handle(handle)
        except (ValueError, TypeError, KeyError, RecursionError, EnvelopeError) as error:
            raise _no_task() from error

    async def _look(self, task: str) -> bytes | None:
        # The id is a UUIDv7: its first 48 bits are milliseconds (RFC 9562 section 5.7).
        fresh = abs(self._node.clock() - int(task[:12], 16) * 1_000) < FRESH_SECONDS * SECOND
        for look in range(_LOOKS if fresh else 1):
            if look:
                await asyncio.sleep(_PAUSE)
            found = await self._keyed.get(self._subject(task))
            if found is not None:
                return found[1]
        return None

    def _subject(self, task: str) -> str:
        return f"state.{self._node.token}.request.{task}"


def _who(token: AccessToken) -> str:
    return sha256(json.dumps([token.issuer, token.subject]).encode()).hexdigest()


def _no_task() -> EdgeError:
    return EdgeError(Code.NOT_FOUND, 404, "no such task")
