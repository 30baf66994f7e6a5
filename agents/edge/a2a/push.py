"""Push notifications: post each new state of a task to the webhooks that its user has registered, until the task ends.

A notification holds the state; clients get the result with a token. Webhooks and their credentials are stored on the bus at
`state.<edge>.a2a.push.<task>`, encrypted under a key of the edge (AES-256-GCM with the subject as associated data). The
process that accepted a webhook follows its task; after a restart, every process that starts does. So two processes may post
the same state. Nothing is posted once the user is revoked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from a2a.types import StreamResponse, TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from sealbus.agents.edge.a2a.task_states import TaskView
from sealbus.agents.edge.a2a.webhook import Webhooks, check_config
from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.problem import EdgeError, TokenRefused
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.task_following import follow_task
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.background import Background
from sealbus.bus.ports import StoredValue
from sealbus.bus.sending.status import Status
from sealbus.bus.stream_names import STATE
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, Code, SealbusError

_logger: Final = logging.getLogger(__name__)

_VERSION: Final = 1
_NONCE_BYTES: Final = 12
_CONFIGS: Final = 4
"""Most webhooks of one task."""
_OF_USER: Final = 64
_WHOLE: Final = 4_096
"""Most tasks of one user, and of all users, that one process follows for webhooks."""
_TRIES: Final = 3
_AGAIN: Final = Backoff(initial_interval=1.0, maximum_interval=30.0, jitter=0.5)
_READ_SECONDS: Final = 30.0
_WRITES: Final = 8
"""How often another process may write first."""


@dataclass(frozen=True, kw_only=True)
class _WebhookSubscription:
    """The webhooks of one task. `after` is the last state that was posted; `done` says that no state follows."""

    handle: str
    context_id: str
    token: AccessToken
    configs: tuple[TaskPushNotificationConfig, ...] = ()
    after: int = -1
    done: bool = False

    def document(self) -> dict[str, Any]:
        token = self.token
        return {
            "v": _VERSION,
            "handle": self.handle,
            "context": self.context_id,
            "who": [token.issuer, token.subject, token.client, token.session, token.auth_time],
            "name": token.name,
            "configs": [MessageToDict(config) for config in self.configs],
            "after": self.after,
            "done": self.done,
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> _WebhookSubscription:
        if document["v"] != _VERSION:
            raise ValueError("another version")
        issuer, subject, client, session, auth_time = document["who"]
        return cls(
            handle=document["handle"],
            context_id=document["context"],
            token=_whose(issuer, subject, client, session, auth_time, document.get("name", "")),
            configs=tuple([ParseDict(config, TaskPushNotificationConfig()) for config in document["configs"]]),
            after=document["after"],
            done=document["done"],
        )


def _whose(issuer: str, subject: str, client: str, session: str, auth_time: int | None, name: str) -> AccessToken:
    """Return a token with only the members that revocations name; it authorizes nothing."""
    return AccessToken(
        issuer=issuer,
        subject=subject,
        client=client,
        session=session,
        auth_time=auth_time,
        scope=(),
        claims={},
        tenant=None,
        acr=None,
        amr=None,
        issued=0,
        expires=0,
        name=name,
    )


class Pushing:
    """The webhooks of one edge's tasks, encrypted under `key`; `again` is the backoff after a failure."""

    def __init__(
        self, front: Front, key: bytes, webhooks: Webhooks, group: asyncio.TaskGroup, page: str, again: Backoff = _AGAIN
    ) -> None:
        self._front = front
        self._node = front.node
        self._cipher = AESGCM(key)
        self._webhooks = webhooks
        self._group = group
        self._page = page
        self._again = again
        self._keyed = KeyValue(front.node.transport)
        self._prefix = f"state.{front.node.token}.a2a.push."
        self._following: dict[str, asyncio.Task[None]] = {}
        self._of_user: Counter[tuple[str, str]] = Counter()

    async def checked(self, config: TaskPushNotificationConfig, token: AccessToken) -> TaskPushNotificationConfig:
        """Return a config as it will be stored, with an id; raise `InvalidParamsError`, or 429 for too many tasks."""
        checked = TaskPushNotificationConfig()
        checked.CopyFrom(config)
        checked.id = checked.id or os.urandom(16).hex()
        checked.tenant = ""
        check_config(checked)
        await self._webhooks.check(checked.url)
        if len(self._following) >= _WHOLE or self._of_user[token.issuer, token.subject] >= _OF_USER:
            raise EdgeError(Code.RATE_LIMITED, 429, "too many tasks have webhooks", retry_after=60)
        return checked

    async def add(
        self,
        config: TaskPushNotificationConfig,
        handle: TaskHandle,
        context_id: str,
        token: AccessToken,
        newest: Status | None,
    ) -> TaskPushNotificationConfig:
        """Store a checked config in place of one with its id, and post all states after `newest` to it."""
        task = config.task_id = handle.message_id
        whose = _whose(token.issuer, token.subject, token.client, token.session, token.auth_time, token.name)
        for _ in range(_WRITES):
            subscription, last = await self._read(task)
            after = newest.sequence if newest is not None else -1
            subscription = subscription or _WebhookSubscription(
                handle=handle.text, context_id=context_id, token=whose, after=after
            )
            others = [other for other in subscription.configs if other.id != config.id]
            if len(others) >= _CONFIGS:
                raise InvalidParamsError(f"a task has at most {_CONFIGS} webhooks")
            # All webhooks of the task follow the newest session: they end when it is revoked.
            changed = replace(subscription, configs=(*others, config), token=whose)
            if await self._write(task, changed, last):
                self._follow(task, changed)
                return config
        raise BusUnavailable("a webhook could not be stored: other processes keep changing those of the task")

    async def configs_of(self, task: str) -> tuple[TaskPushNotificationConfig, ...]:
        """Return the configs of a task; raise `BusUnavailable`."""
        subscription, _ = await self._read(task)
        return subscription.configs if subscription is not None else ()

    async def config_of(self, task: str, name: str) -> TaskPushNotificationConfig:
        """Return the config of a task with this id; raise `TaskNotFoundError` if there is none."""
        for config in await self.configs_of(task):
            if config.id == name:
                return config
        raise TaskNotFoundError("no such webhook")

    async def remove(self, task: str, name: str) -> None:
        """Remove a config, if there is one. Raises `BusUnavailable`."""
        for _ in range(_WRITES):
            subscription, last = await self._read(task)
            if subscription is None or all(config.id != name for config in subscription.configs):
                return
            remaining = tuple([config for config in subscription.configs if config.id != name])
            if await self._write(task, replace(subscription, configs=remaining), last):
                return
        raise BusUnavailable("a webhook could not be removed: other processes keep changing those of the task")

    async def resume(self) -> None:
        """Follow the stored tasks that have webhooks and have not ended; retry until they can be read."""
        failures = 0
        while not self._front.stopping.is_set():
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    await self._resume_all()
            except (SealbusError, TimeoutError) as error:
                failures += 1
                _logger.warning("the webhooks from before cannot be read now: %s", type(error).__name__)
                await self._pause(failures)
            else:
                return

    async def _resume_all(self) -> None:
        reading = self._node.transport.read(STATE, [self._prefix + "*"])
        async with aclosing(reading) as batches:
            async for batch in batches:
                for entry in batch:
                    subscription = self._opened(entry.subject, entry.payload)
                    if subscription is not None:
                        self._follow(entry.subject.removeprefix(self._prefix), subscription)

    def stop(self) -> None:
        """Stop posting."""
        for following in list(self._following.values()):
            following.cancel()

    def _follow(self, task: str, subscription: _WebhookSubscription) -> None:
        if task in self._following or subscription.done or not subscription.configs:
            return
        user = (subscription.token.issuer, subscription.token.subject)
        self._of_user[user] += 1

        def ended(_: asyncio.Task[None]) -> None:
            del self._following[task]
            self._of_user[user] -= 1
            if not self._of_user[user]:
                del self._of_user[user]

        following = self._following[task] = self._group.create_task(self._follow_task(task), name="webhooks of a task")
        following.add_done_callback(ended)

    async def _follow_task(self, task: str) -> None:
        failures = 0
        while not self._front.stopping.is_set():
            try:
                subscription, _ = await self._read(task)
                if (
                    subscription is None
                    or subscription.done
                    or not subscription.configs
                    or not await self._tell_states(task, subscription)
                ):
                    return
                failures = 0
            except TokenRefused:
                _logger.info("a task's webhooks get no more states: its user is revoked")
                return
            except SealbusError as error:
                failures += 1
                _logger.warning("a task is not followed now for its webhooks: %s", error.code)
                await self._pause(failures)

    async def _tell_states(self, task: str, subscription: _WebhookSubscription) -> bool:
        """Post states as they come, as long as a stream may last; return whether more may follow."""
        handle = self._node.sending.handle(subscription.handle)
        view = TaskView(task, subscription.context_id, self._page)
        within = self._front.limits.event_seconds
        async with aclosing(
            follow_task(handle, self._front, subscription.token, after=subscription.after, within=within)
        ) as statuses:
            async for status in statuses:
                current, _ = await self._read(task)
                if current is None or not current.configs:
                    return False
                await self._tell(view, current, status)
                await self._note(task, status)
                if status.final:
                    return False
        return True

    async def _tell(self, view: TaskView, subscription: _WebhookSubscription, status: Status) -> None:
        event = StreamResponse(status_update=view.state(status))
        body = json.dumps(MessageToDict(event), ensure_ascii=False).encode()
        for config in subscription.configs:
            for tried in range(1, _TRIES + 1):
                if await self._webhooks.tell(config, body) or self._front.stopping.is_set():
                    break
                if tried < _TRIES:
                    await self._pause(tried)
                    self._front.unrevoked(subscription.token)

    async def _note(self, task: str, status: Status) -> None:
        for _ in range(_WRITES):
            subscription, last = await self._read(task)
            if subscription is None or (subscription.after >= status.sequence > 0 and not status.final):
                return
            after = max(subscription.after, status.sequence)
            if await self._write(task, replace(subscription, after=after, done=status.final), last):
                return

    async def _pause(self, failures: int) -> None:
        pause = self._again.interval(failures, random.random())  # noqa: S311  spreads retries, no secret
        stopping = asyncio.ensure_future(self._front.stopping.wait())
        await asyncio.wait([stopping], timeout=pause)
        stopping.cancel()

    async def _read(self, task: str) -> tuple[_WebhookSubscription | None, int]:
        subject = self._prefix + task
        stored: StoredValue | None = await self._keyed.get(subject)
        return (self._opened(subject, stored.payload), stored.sequence) if stored is not None else (None, 0)

    async def _write(self, task: str, subscription: _WebhookSubscription, last: int) -> bool:
        subject, nonce = self._prefix + task, os.urandom(_NONCE_BYTES)
        text = json.dumps(subscription.document()).encode()
        value = nonce + self._cipher.encrypt(nonce, text, subject.encode())
        return await self._keyed.replace(subject, value, last=last) is not None

    def _opened(self, subject: str, payload: bytes) -> _WebhookSubscription | None:
        """Return the webhooks that this edge has stored; None for any other bytes."""
        nonce, sealed = payload[:_NONCE_BYTES], payload[_NONCE_BYTES:]
        try:
            return _WebhookSubscription.parse(json.loads(self._cipher.decrypt(nonce, sealed, subject.encode())))
        except (InvalidTag, ValueError, LookupError, TypeError, ParseError):
            return None


@asynccontextmanager
async def pushing(
    front: Front, key: bytes, webhooks: Webhooks, page: str, again: Backoff = _AGAIN
) -> AsyncGenerator[Pushing, None]:
    """Yield the webhooks of an edge, and follow stored tasks again; leaving stops posting."""
    async with Background() as group:
        started = Pushing(front, key, webhooks, group, page, again)
        resuming = group.create_task(started.resume(), name="webhooks from before")
        try:
            yield started
        finally:
            resuming.cancel()
            started.stop()
