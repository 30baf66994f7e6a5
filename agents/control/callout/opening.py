"""From settings to a running responder, and from a refusal to the refusals that operators read."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sealbus.agents.control.callout.keys import load_keys
from sealbus.agents.control.callout.nkeys import NkeyError, Prefix, decode_public
from sealbus.agents.control.callout.responder import SUBJECT, Callout, RefusedConnection
from sealbus.agents.settings import Settings
from sealbus.bus.connection import Connection
from sealbus.bus.counters import Counters
from sealbus.bus.login import NkeyLogin
from sealbus.bus.ports import Delivery, Identity
from sealbus.bus.refusals import Refusals
from sealbus.envelopes.errors import ConfigurationError, ConnectRefused
from sealbus.policies.engine import PolicyEngine

__all__ = ["INBOX", "into_refusals", "open_callout"]

INBOX: Final = "_INBOX.callout."
"""Inbox prefix of responders in their account."""


@asynccontextmanager
async def open_callout(
    settings: Settings,
    *,
    identity: Identity,
    engine: PolicyEngine,
    counters: Counters | None = None,
    on_refused: Callable[[RefusedConnection], None] = lambda _: None,
) -> AsyncGenerator[Callout, None]:
    """Read the keys, connect to NATS as a responder with `identity`, and yield the `Callout` to `run`.

    `engine` is entered. Raises `ConfigurationError` for a key that is missing or wrong, `BusUnavailable` where the
    first connect fails.
    """
    table = settings.control.callout
    keys = load_keys(
        issuer=_said("issuer", table.issuer), xkey=_said("xkey", table.xkey), user=_said("nkey", table.nkey)
    )
    for server in table.servers:
        try:
            decode_public(server, Prefix.SERVER)
        except NkeyError as error:
            raise ConfigurationError(f"control.callout.servers: {server!r} is no server's nkey (N...)") from error
    counters = counters or Counters()
    async with Connection(
        settings.nats,
        identity=identity,
        server_ids=settings.nats_ids,
        inbox_prefix=INBOX,
        name="callout",
        counters=counters,
        login=NkeyLogin(public=keys.user.public, sign=keys.user.sign),
    ) as connection:
        yield Callout(
            connection=connection,
            identity=identity,
            engine=engine,
            keys=keys,
            names=settings.names,
            accounts=table.accounts,
            own=settings.own_subjects,
            servers=table.servers,
            longest=table.longest or 0.0,
            counters=counters,
            on_refused=on_refused,
        )


def into_refusals(refusals: Refusals) -> Callable[[RefusedConnection], None]:
    """Return what counts refused connections in the refusals stream, under the subject that NATS asks on.

    The sample is what was verified of the first one; the request itself may hold passwords that a client sent.
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


def _said(name: str, path: Path | None) -> Path:
    if path is None:
        raise ConfigurationError(f"control.callout.{name} is not set: `sealbus control keygen` makes the keys")
    return path
