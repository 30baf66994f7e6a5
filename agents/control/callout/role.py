"""The auth callout as a role of the control process: opens a responder from the settings and publishes its refusals.

Refusals are published over an ordinary connection, which the callout itself must admit. So this connection exists only once
the callout answers, and the start must not wait for it. Until then refusals are kept, up to a bound.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from sealbus.agents.control.callout.key_files import load_folder, load_keys
from sealbus.agents.control.callout.nkeys import NkeyError, Prefix, decode_public
from sealbus.agents.control.callout.policy import NOT_KNOWN, StartingEngine, first_bundle, follow_bucket
from sealbus.agents.control.callout.refused_minutes import RefusedMinutes
from sealbus.agents.control.callout.responder import SUBJECT, Callout, ConnectEngine, ConnectRules, RefusedConnection
from sealbus.agents.control.control import CONTROL
from sealbus.agents.runtime.open import connection_of, open_engine, open_identity
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.options import ConnectionOptions, NkeyLogin
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, Identity
from sealbus.bus.sending.message import single_record
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError, ConnectRefused, SealbusError
from sealbus.envelopes.message.subjects import audit_subject, refused_subject
from sealbus.policies.bundle.in_force import InForce

_logger: Final = logging.getLogger(__name__)

INBOX: Final = "_INBOX.callout."
"""Inbox prefix of responders in their account."""

Use = Callable[[Connection], Coroutine[None, None, None]]
"""A task on a connection, run until it is cancelled; if one task raises, all start again."""

KEPT_REFUSALS: Final = 256
"""Refusals kept while there is no connection to publish them on; beyond this the oldest are dropped and counted."""

STORED: Final = 10.0
"""Seconds within which the audit stream must have the record of a minute."""

_BACKOFF: Final = ConnectionOptions().backoff


class CalloutRole:
    """A running responder, and an ordinary connection that it admits."""

    def __init__(self, callout: Callout, ordinary: OrdinaryConnection, known: asyncio.Event) -> None:
        self._callout = callout
        self._ordinary = ordinary
        self._known = known

    @property
    def problem(self) -> str:
        """Why connections cannot be answered now; empty if they can."""
        return self._callout.problem or ("" if self._known.is_set() else NOT_KNOWN)

    async def run(self) -> None:
        """Answer until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._callout.run(), name="callout")
            group.create_task(self._ordinary.run(), name="callout-ordinary")


@asynccontextmanager
async def open_callout_role(settings: Settings, *, counters: Counters) -> AsyncGenerator[CalloutRole, None]:
    """Open identity, policy engine and the responder's connection. Raises `SealbusError` if one of them is missing."""
    policy, in_force, known = settings.policy, InForce(), asyncio.Event()
    first = await asyncio.to_thread(first_bundle, policy, settings.control.callout.bootstrap)
    async with open_identity(CONTROL, settings, counters=counters) as identity:
        refused = RefusedConnections(
            subject=refused_subject(settings.names.token(identity.spiffe_id)), counters=counters
        )
        minutes = RefusedMinutes()

        async def record(connection: Connection) -> None:
            subject, transport = audit_subject(settings.names.token(identity.spiffe_id)), NatsTransport(connection)
            async with Outbox(identity=identity, transport=transport) as outbox:
                await minutes.store_minutes(
                    lambda counted: outbox.publish(single_record(subject, counted), within=STORED)
                )

        def note(one: RefusedConnection) -> None:
            refused.note(one)
            minutes.note(str(one.code))

        uses: list[Use] = [refused.publish, record]
        if first is None or not first.bootstrap:
            known.set()
        if first is not None:
            await in_force.put(first.bundle)

            async def follow(connection: Connection) -> None:
                await follow_bucket(policy, connection, counters, in_force, known)

            uses.append(follow)
        async with (
            open_engine(policy, identity, in_force) as engine,
            open_callout(
                settings,
                identity=identity,
                engine=StartingEngine(engine, identity.spiffe_id, known),
                counters=counters,
                on_refused=note,
            ) as callout,
        ):
            connect = partial(connection_of, CONTROL, settings, identity, counters)
            yield CalloutRole(callout, OrdinaryConnection(connect, uses), known)


@asynccontextmanager
async def open_callout(
    settings: Settings,
    *,
    identity: Identity,
    engine: ConnectEngine,
    counters: Counters | None = None,
    on_refused: Callable[[RefusedConnection], None] = lambda _: None,
) -> AsyncGenerator[Callout, None]:
    """Read the keys, connect to NATS as a responder with `identity`, and yield the `Callout` to `run`.

    `engine` is already entered. Raises `ConfigurationError` for a key that is missing or wrong, `BusUnavailable` if the first
    connect fails.
    """
    table = settings.control.callout
    current = load_keys(
        issuer=_named("issuer", table.issuer), xkey=_named("xkey", table.xkey), user=_named("nkey", table.nkey)
    )
    keys = (current, load_folder(table.previous)) if table.previous is not None else (current,)
    for server in table.servers:
        try:
            decode_public(server, Prefix.SERVER)
        except NkeyError as error:
            raise ConfigurationError(f"control.callout.servers: {server!r} is not a server's nkey (N...)") from error
    counters = counters or Counters()
    async with Connection(
        settings.nats,
        identity=identity,
        server_ids=frozenset(settings.nats_ids),
        inbox_prefix=INBOX,
        options=ConnectionOptions(name="callout", login=NkeyLogin(public=current.user.public, sign=current.user.sign)),
        counters=counters,
    ) as connection:
        yield Callout(
            ConnectRules(
                names=settings.names,
                accounts=table.accounts,
                own=settings.own_subjects,
                servers=table.servers,
                longest=table.longest or 0.0,
            ),
            connection=connection,
            identity=identity,
            engine=engine,
            keys=keys,
            counters=counters,
            on_refused=on_refused,
        )


def into_refusals(refusals: Refusals) -> Callable[[RefusedConnection], None]:
    """Return a function that counts refused connections in the refusals stream, under the subject of NATS' requests.

    The sample holds the verified facts of the first refusal. It does not hold the request, in which a client may have sent
    passwords.
    """

    def note(refused: RefusedConnection) -> None:
        sample = json.dumps(
            {
                "code": str(refused.code),
                "spiffe_id": refused.subject,
                "reasons": list(refused.reasons),
                "server": refused.server,
            },
            separators=(",", ":"),
        )
        refusals.count(
            ConnectRefused(refused.code, refused.detail),
            Delivery(subject=SUBJECT, payload=sample.encode(), header_block=b""),
        )

    return note


def _named(name: str, path: Path | None) -> Path:
    if path is None:
        raise ConfigurationError(f"control.callout.{name} is not set: `sealbus control keygen` makes the keys")
    return path


class OrdinaryConnection:
    """A connection made by `connect` for `uses`; after a failure, both start again."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]], uses: Sequence[Use]) -> None:
        self._connect = connect
        self._uses = tuple(uses)

    async def run(self) -> None:
        """Connect and run the uses until cancelled."""
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._connect() as connection:
                    attempt = 1
                    async with asyncio.TaskGroup() as uses:
                        for use in self._uses:
                            uses.create_task(use(connection))
            except* SealbusError as group:
                _logger.warning("the control process has no ordinary connection: %s", _first(group))
            await asyncio.sleep(_BACKOFF.interval(attempt, random.random()))  # noqa: S311  not a secret


def _first(group: BaseExceptionGroup[SealbusError]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.detail if isinstance(error, SealbusError) else type(error).__name__


class RefusedConnections:
    """Refused connections, kept until `publish` publishes their counts and samples under `subject`."""

    def __init__(self, *, subject: str, counters: Counters) -> None:
        self._subject = subject
        self._counters = counters
        self._waiting: deque[RefusedConnection] = deque()
        self._note: Callable[[RefusedConnection], None] | None = None

    def note(self, refused: RefusedConnection) -> None:
        """Keep one refusal for publication; never blocks."""
        if self._note is not None:
            self._note(refused)
            return
        if len(self._waiting) == KEPT_REFUSALS:
            self._waiting.popleft()
            self._counters.add("sealbus_refusals_lost_total", 1)
        self._waiting.append(refused)

    async def publish(self, connection: Connection) -> None:
        """Publish the kept refusals and new ones, until cancelled."""
        refusals = Refusals(transport=NatsTransport(connection), subject=self._subject, counters=self._counters)
        self._note = into_refusals(refusals)
        try:
            while self._waiting:
                self._note(self._waiting.popleft())
            await refusals.run()
        finally:
            self._note = None
