"""Owners of tasks: the edge shows a task only to the user who submitted it.

An owner is stored on the bus (`state.<edge>.request.<task id>`), so that any process of the edge can answer, also after a
restart. The value holds the handle and a hash of the user, not the user's id. It is signed, because agents can make the
broker store bytes there, and the agent that handled a task knows the content of its handle.

A stored owner expires after a day. A task that waits for an approval may take weeks. Then it is found by its marker, and its
owner is read from its own context (`sealbus.agents.edge.v1.approvals`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Final

from starlette.requests import Request

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.approvals import ParkedTaskReader
from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.task_handle import TaskHandle, handle_text
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.bus.streams.declared import HELD_SECONDS
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import is_own, signed
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import is_uuid7
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.message.wire import Statement

_ID: Final = re.compile("[0-9a-f]{32}")
_VERSION: Final = 1
_TYPE: Final = "application/vnd.sealbus.task-owner.v1"
"""The type of the signature."""
_BYTES: Final = 16_384
"""Most bytes of one part: a handle, which is under 8,192 bytes, with its fields; or a token."""

FRESH_SECONDS: Final = 5
"""For this long a missing task is looked up again: a replica of the stream may lag behind the one that stored the task."""
_LOOKS: Final = 4
_PAUSE: Final = 0.25


class TaskOwners:
    """The owners of one edge's tasks.

    Where users are `pseudonymous` it stores the pseudonym, otherwise a hash of the user. From ids it could be computed by
    anyone with a list of users.
    `charge` counts a read of HELD as one more request of the token's user, and may raise 429. `context` mints the context of
    the user who reads; the policy decides on results for that user.
    """

    def __init__(
        self,
        node: Node,
        *,
        pseudonymous: bool = False,
        charge: Callable[[AccessToken, float], None] = lambda *_: None,
        context: Callable[[AccessToken, Request], Statement] | None = None,
    ) -> None:
        self._node = node
        self._charge = charge
        self._context = context
        self._parked_tasks = ParkedTaskReader(node)
        self._pseudonymous = pseudonymous
        self._keyed = KeyValue(node.transport)

    async def keep(self, handle: TaskHandle, token: AccessToken) -> None:
        """Remember that `handle` was submitted for the user of `token`.

        Raises `BusUnavailable`, `IdentityUnavailable`.
        """
        await self._keep(handle, self._owner_of(token))

    async def keep_for(self, handle: TaskHandle, user: UserContext) -> None:
        """Remember that `handle` was submitted for the user of a context that this edge has minted; raises as `keep`."""
        domain = f"@{user.dom}" if user.dom is not None else ""
        kind = [user.typ.value] if user.typ is not None else []
        await self._keep(handle, self._known_as(user.idp, user.sub.removesuffix(domain), kind))

    async def _keep(self, handle: TaskHandle, owner: str) -> None:
        value = json.dumps(
            {"v": _VERSION, "handle": handle.text, "who": owner, "at": self._node.site.bus_clock()},
            separators=(",", ":"),
        )
        parts = signed(value.encode(), _TYPE, self._node.identity.sealer())
        await self._keyed.create(self._subject(handle.message_id), encode([*parts], text_bytes=_BYTES))

    async def find_task(self, task: str, token: AccessToken, request: Request | None = None) -> TaskHandle:
        """Return the task with id `task`, for the user of `token`, who asks for it by `request`.

        Raises 404 if there is none, or if it is another user's, or as `charge` does.
        """
        handle = await self._find_handle(task, token)
        if self._context is None or request is None:
            return handle
        user = parse_payload(self._context(token, request).payload)
        return replace(handle, task=replace(handle.task, context=user))

    async def _find_handle(self, task: str, token: AccessToken) -> TaskHandle:
        if not _ID.fullmatch(task):
            raise _no_task()
        stored = await self._read_stored(task)
        entry = self._parse_entry(stored, task) if stored is not None else None
        if entry is None:
            return await self._parked(task, token)
        handle, owner = entry
        if not hmac.compare_digest(owner.encode(), self._owner_of(token).encode()):
            raise _no_task()
        return handle

    def place(self, token: AccessToken) -> str:
        """Return the name for the user of `token` in subjects, which does not reveal the user."""
        return sha256(self._owner_of(token).encode()).hexdigest()[:32]

    def _parse_entry(self, stored: bytes, task: str) -> tuple[TaskHandle, str] | None:
        """Return the stored handle and its owner; `None` for bytes that this edge has not signed."""
        try:
            parts = [part for part in _array(stored) if isinstance(part, bytes)]
            value = json.loads(parts[0])
            handle, owner, at = self._node.sending.handle(str(value["handle"])), str(value["who"]), int(value["at"])
            ours = is_own(parts, _TYPE, own=self._node.own, at=at, trust=self._node.trust(), caches=self._node.caches)
            if not ours or value["v"] != _VERSION or handle.message_id != task:
                return None
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError, EnvelopeError):
            return None
        return handle, owner

    async def _parked(self, task: str, token: AccessToken) -> TaskHandle:
        """Return a parked task whose stored owner has expired; raise 404 as `find_task` does."""
        if not self._may_be_held(task):
            raise _no_task()
        self._charge(token, 1.0)
        parked = await self._parked_tasks.submitted(bytes.fromhex(task))
        context = parked.message.context if parked is not None else None
        if parked is None or context is None:
            raise _no_task()
        person = (context.idp, context.sub, context.typ)
        if person != (token.issuer, token.name, token.type):
            raise _no_task()
        pending = AskedTask(pending=PendingRequest.of(parked.message.header), action=parked.parked.decision.action)
        return self._node.sending.handle(handle_text(pending))

    def _may_be_held(self, task: str) -> bool:
        """Return whether a task with this id is of an age at which HELD may hold it."""
        return is_uuid7(bytes.fromhex(task)) and -FRESH_SECONDS * SECOND < self._age(task) < HELD_SECONDS * SECOND

    def _age(self, task: str) -> int:
        """Return the age of a task by its id: the first 48 bits of a UUIDv7 are milliseconds (RFC 9562, 5.7)."""
        return self._node.site.bus_clock() - int(task[:12], 16) * 1_000

    async def _read_stored(self, task: str) -> bytes | None:
        fresh = abs(self._age(task)) < FRESH_SECONDS * SECOND
        for look in range(_LOOKS if fresh else 1):
            if look:
                await asyncio.sleep(_PAUSE)
            stored = await self._keyed.get(self._subject(task))
            if stored is not None:
                return stored.payload
        return None

    def _owner_of(self, token: AccessToken) -> str:
        # A client or workload with the same id as a user is not that user.
        kind = [token.type.value] if token.type is not None else []
        domain = f"@{token.domain}" if token.domain is not None else ""
        return self._known_as(token.issuer, token.name.removesuffix(domain), kind)

    def _known_as(self, issuer: str, name: str, kind: list[str]) -> str:
        """Return the stored form of an owner whose name in contexts, without a partner's domain, is `name`."""
        if self._pseudonymous:
            return " ".join([name, *kind])
        return sha256(json.dumps([issuer, name, *kind]).encode()).hexdigest()

    def _subject(self, task: str) -> str:
        return f"state.{self._node.token}.request.{task}"


def _array(stored: bytes) -> list[Value]:
    array = decode(stored, text_bytes=_BYTES, step=0)
    return array if isinstance(array, list) else []


def _no_task() -> EdgeError:
    return EdgeError(Code.NOT_FOUND, 404, "no such task")
