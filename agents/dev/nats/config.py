"""The configuration of the embedded nats-server: mutual TLS, users by SPIFFE ID, what each may do, JetStream on disk (pure).

Written as JSON, which nats-server reads as it is, so that no path or name can break out of its quotes.

Each workload may use the NATS subjects that its part needs, and no others. Permissions are the outer fence: they keep an
honest mistake and a curious agent away from other agents' streams, inboxes and records. What a message may do is never
decided here but by the policy of whoever consumes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sealbus.bus.stream_names import EVENTS, RESULTS, TASKS
from sealbus.bus.streams.declared import own_durable
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import REPLY_TOKEN, OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "BrokerRole",
    "BrokerUser",
    "NatsConfig",
    "Permissions",
    "agent_permissions",
    "notary_permissions",
    "operator_permissions",
    "permissions_of",
]

_CONTROL: Final = frozenset(chr(code) for code in (*range(32), 127))
_HANDSHAKE_SECONDS: Final = 5

_API: Final = "$JS.API"
_READERS: Final = RESULTS
POLICIES: Final = "policies"
"""The bucket that policies are pushed to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """One workload that may connect, by the SPIFFE ID in its client certificate."""

    spiffe_id: SpiffeId
    permissions: Permissions


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """Everything that the embedded server is told. All paths are absolute; `port` -1 lets the server choose.

    `bundle` must hold the CAs of one trust domain only: nats-server maps a certificate of any of its CAs to a user by
    the SPIFFE ID alone, and does not ask which CA may vouch for which trust domain.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    bundle: Path
    store: Path
    users: tuple[BrokerUser, ...]
    max_store_bytes: int
    sync: bool = True
    """Whether a write is on the disk before it is acknowledged. Otherwise the server syncs every two minutes, and a power
    failure takes what was acknowledged since."""
    server_name: str = "sealbus-dev"
    max_payload: int = DEFAULT_LIMITS.envelope_bytes

    def __post_init__(self) -> None:
        if self.port != -1 and not 1 <= self.port <= 65_535:
            raise ConfigurationError(f"NATS port {self.port}: must be from 1 to 65535, or -1 for any free one")
        for path in (self.certificate, self.key, self.bundle, self.store):
            # The server's parser knows no escapes but those for quotes and backslashes.
            if not path.is_absolute() or _CONTROL & set(str(path)):
                raise ConfigurationError(f"{str(path)!r} cannot stand in the server's configuration")
        ids = [user.spiffe_id for user in self.users]
        if len(set(ids)) != len(ids):
            raise ConfigurationError("two NATS users have one SPIFFE ID")

    def render(self) -> bytes:
        """Return the configuration file. Holds no secret, only the path of the key."""
        document: dict[str, object] = {
            "server_name": self.server_name,
            "listen": f"{self.host}:{self.port}",
            "max_payload": self.max_payload,
            # Its default is over the server's heap; a development server is small.
            "max_connections": 1_024,
            "tls": {
                "cert_file": str(self.certificate),
                "key_file": str(self.key),
                "ca_file": str(self.bundle),
                # The URI SAN of the verified client certificate is the user; a name in CONNECT is ignored.
                "verify_and_map": True,
                "min_version": "1.3",
                # Without it the server speaks in the clear first, and a client can be talked out of TLS.
                "handshake_first": True,
                "timeout": _HANDSHAKE_SECONDS,
            },
            "jetstream": {
                "store_dir": str(self.store),
                "max_file_store": self.max_store_bytes,
                **({"sync_interval": "always"} if self.sync else {}),
            },
            "accounts": {
                "APP": {"jetstream": "enabled", "users": _users(self.users)},
                "SYS": {},
            },
            "system_account": "SYS",
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _users(users: Sequence[BrokerUser]) -> list[object]:
    return [
        {
            "user": str(user.spiffe_id),
            "permissions": {
                "publish": {"allow": list(user.permissions.publish)},
                "subscribe": {"allow": list(user.permissions.subscribe)},
            },
        }
        for user in users
    ]


class BrokerRole(StrEnum):
    """What a workload is to the broker."""

    AGENT = "agent"
    """Sends, handles, records; reads what is addressed to it."""
    NOTARY = "notary"
    """An agent that may also read all of AUDIT, to keep a log of it."""
    OPERATOR = "operator"
    """An agent that may also manage and read every stream: `sealbus streams apply`, `sealbus audit replay`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """NATS subject filters that one user may publish and subscribe to; everything else is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions_of(role: BrokerRole, spiffe_id: SpiffeId, names: Names, own: Sequence[OwnSubject] = ()) -> Permissions:
    """Return what a workload of `role` may do under `spiffe_id`."""
    if role is BrokerRole.OPERATOR:
        return operator_permissions(spiffe_id, names, own)
    if role is BrokerRole.NOTARY:
        return notary_permissions(spiffe_id, names, own)
    return agent_permissions(spiffe_id, names, own)


def agent_permissions(spiffe_id: SpiffeId, names: Names, own: Sequence[OwnSubject] = ()) -> Permissions:
    """Return what an agent may do, whatever it handles.

    It publishes tasks and calls to anybody, answers to the part of any inbox that they are read from, and statuses to
    any requester, because these subjects name their reader, and everything else (events, records, refusals, dead
    letters, state) under its own token only. It hears its calls and its inbox; what streams hold for it (its tasks and
    statuses, everybody's events) comes to that inbox, through consumers. Of the JetStream API it may use exactly the
    subjects that its own consumers need: it cannot read another agent's tasks, the audit stream, or change a stream.
    """
    token = names.token(spiffe_id)
    return Permissions(
        publish=(
            "task.>",
            "call.>",
            "status.>",
            f"event.{token}.>",
            f"dead.{token}.>",
            f"audit.{token}",
            f"refused.{token}",
            f"state.{token}.>",
            f"_INBOX.*.{REPLY_TOKEN}.*.*",
            *(one.subject for one in own if one.kind is not Kind.EVENT or one.owner == spiffe_id),
            # How streams are declared, and no STREAM.INFO: that also tells their subjects, which name others' tasks.
            f"{_API}.STREAM.LIST",
            f"{_API}.STREAM.NAMES",
            f"{_API}.DIRECT.GET.STATE.state.{token}.>",
            *_durable(TASKS, token, f"task.{token}.>"),
            *(
                subject
                for one in own
                if one.kind is Kind.TASK and one.owner == spiffe_id
                for subject in _durable(TASKS, own_durable(one.subject), one.subject)
            ),
            *_durable(EVENTS, token, ">"),
            f"{_API}.CONSUMER.CREATE.EVENTS.{token}",
            # Each reader of statuses has a consumer of its own, with a random name that nobody else can guess.
            f"{_API}.CONSUMER.CREATE.{_READERS}.*.status.{token}.>",
            f"{_API}.CONSUMER.MSG.NEXT.{_READERS}.*",
            f"{_API}.CONSUMER.DELETE.{_READERS}.*",
            *_bucket_reader(POLICIES),
        ),
        subscribe=(
            f"{names.inbox_prefix(spiffe_id)}>",
            f"call.{token}.*",
            *(one.subject for one in own if one.kind is Kind.CALL and one.owner == spiffe_id),
        ),
    )


def _bucket_reader(bucket: str) -> tuple[str, ...]:
    """Return what it takes to follow a bucket of the object store; what is in it is signed, and no secret."""
    stream = f"OBJ_{bucket}"
    return (
        f"{_API}.DIRECT.GET.{stream}.$O.{bucket}.M.*",
        f"{_API}.CONSUMER.CREATE.{stream}.*.$O.{bucket}.>",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.*",
        f"{_API}.CONSUMER.DELETE.{stream}.*",
    )


def notary_permissions(spiffe_id: SpiffeId, names: Names, own: Sequence[OwnSubject] = ()) -> Permissions:
    """Return what a notary may do: all that an agent may, and read AUDIT, which it adds to under its own token only."""
    agent = agent_permissions(spiffe_id, names, own)
    reading = (
        f"{_API}.CONSUMER.CREATE.AUDIT.*.audit.>",
        f"{_API}.CONSUMER.MSG.NEXT.AUDIT.*",
        f"{_API}.CONSUMER.DELETE.AUDIT.*",
    )
    return Permissions(publish=(*agent.publish, *reading), subscribe=agent.subscribe)


def operator_permissions(spiffe_id: SpiffeId, names: Names, own: Sequence[OwnSubject] = ()) -> Permissions:
    """Return what an operator may do: all that an agent may, the whole JetStream API, and pushing policies.

    An operator still cannot publish under another agent's token, nor listen to another's inbox.
    """
    agent = agent_permissions(spiffe_id, names, own)
    kept = tuple(subject for subject in agent.publish if not subject.startswith("$JS."))
    return Permissions(publish=(*kept, f"{_API}.>", "$JS.ACK.>", f"$O.{POLICIES}.>"), subscribe=agent.subscribe)


def _durable(stream: str, consumer: str, filters: str) -> tuple[str, ...]:
    """Return what the durable `consumer` needs; the server checks that its one filter is the one in the subject."""
    return (
        f"{_API}.CONSUMER.CREATE.{stream}.{consumer}.{filters}",
        f"{_API}.CONSUMER.INFO.{stream}.{consumer}",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
    )
