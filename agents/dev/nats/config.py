"""The configuration of the embedded nats-server: mutual TLS, users by SPIFFE ID, permissions, JetStream on disk (pure).

It is written as JSON, which nats-server reads as it is, so that no path or name can break out of its quotes.

Each workload may use only the NATS subjects that it needs. Permissions are the outer fence: they keep an honest mistake and a
curious agent away from other agents' streams, inboxes and records. They never decide what a message may do: that is decided
by the policy of its recipient.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sealbus.agents.dev.nats.accounts import POLICIES, SYSTEM, accounts
from sealbus.bus.ports import JsonObject
from sealbus.bus.stream_names import EVENTS, HELD, PEOPLE, RESULTS, STATE, TASKS
from sealbus.bus.streams.declared import approval_durable, control_durable, own_durable, schedule_durable
from sealbus.bus.work.cancel.stop import STOPS
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import REPLY_TOKEN, OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.revocations import REVOCATIONS

_CONTROL: Final = frozenset(chr(code) for code in (*range(32), 127))
_HANDSHAKE_SECONDS: Final = 5

HOST: Final = "127.0.0.1"
"""The address that the server listens on."""

_API: Final = "$JS.API"
SCHEDULES: Final = "control.*.schedule"
"""Requests to send a message later. As with tasks, the recipient's policy decides who may make them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """One workload that may connect, by the SPIFFE ID in its client certificate."""

    spiffe_id: SpiffeId
    permissions: Permissions
    with_streams: bool = False
    """Whether it is in the account that has the streams (`BrokerRole.with_streams`)."""

    def config(self) -> JsonObject:
        """Return the user as the server's configuration has it."""
        return {
            "user": str(self.spiffe_id),
            "permissions": {
                "publish": {"allow": list(self.permissions.publish)},
                "subscribe": {"allow": list(self.permissions.subscribe)},
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """The settings of the embedded server. All paths are absolute; `port` -1 lets the server choose.

    `bundle` must hold the CAs of one trust domain only: nats-server maps a certificate of any of its CAs to a user by the
    SPIFFE ID alone, and does not check which CA may vouch for which trust domain.
    """

    port: int
    certificate: Path
    key: Path
    bundle: Path
    store: Path
    users: tuple[BrokerUser, ...]
    max_store_bytes: int
    own: tuple[OwnSubject, ...] = ()
    sync: bool = True
    """Whether a write is on the disk before it is acknowledged. Otherwise the server syncs every two minutes, and a power
    failure loses the writes since then."""
    server_name: str = "sealbus-dev"
    max_payload: int = DEFAULT_LIMITS.envelope_bytes

    def __post_init__(self) -> None:
        if self.port != -1 and not 1 <= self.port <= 65_535:
            raise ConfigurationError(f"NATS port {self.port}: must be from 1 to 65535, or -1 for any free port")
        for path in (self.certificate, self.key, self.bundle, self.store):
            # The server's parser knows no escapes except those for quotes and backslashes.
            if not path.is_absolute() or _CONTROL & set(str(path)):
                raise ConfigurationError(f"{str(path)!r} cannot be in the server's configuration")
        ids = [user.spiffe_id for user in self.users]
        if len(set(ids)) != len(ids):
            raise ConfigurationError("two NATS users have the same SPIFFE ID")

    def render(self) -> bytes:
        """Return the configuration file. It holds no secret, only the path of the key."""
        document: dict[str, object] = {
            "server_name": self.server_name,
            "listen": f"{HOST}:{self.port}",
            "max_payload": self.max_payload,
            # Its default exceeds the server's heap; a development server is small.
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
            "accounts": accounts(
                with_streams=[user.config() for user in self.users if user.with_streams],
                others=[user.config() for user in self.users if not user.with_streams],
                own=self.own,
            ),
            "system_account": SYSTEM,
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()


class BrokerRole(StrEnum):
    """The role of a workload towards the broker."""

    AGENT = "agent"
    """Sends, handles, records; reads messages addressed to it."""
    EDGE = "edge"
    """An agent that may also tell others what was approved, and read what waits for that."""
    EXIT = "exit"
    """An agent that may also read the tokens that the edge keeps for it."""
    NOTARY = "notary"
    """An agent that may also read all of AUDIT, to keep a log of it."""
    CONTROL = "control"
    """A notary that may also list the consumers of TASKS and EVENTS, with how much waits for each."""
    REVOKER = "revoker"
    """An agent that may also replace the revocations in the bucket of policies."""
    BACKUP = "backup"
    """An agent that may also copy whole streams out of the server and into it: `sealbus backup`, `restore`."""
    CONSOLE = "console"
    """An agent that may also read tasks, statuses, events, records and dead letters, and list consumers."""
    OPERATOR = "operator"
    """An agent that may also manage and read every stream: `sealbus streams apply`, `sealbus audit replay`."""

    @property
    def with_streams(self) -> bool:
        """Whether it is in the account that has the streams.

        These roles make, copy and replace streams, or keep the log of AUDIT. They need more of JetStream than crosses between
        the accounts. Calls do not reach them.
        """
        return self in _WITH_STREAMS


_WITH_STREAMS: Final = frozenset({BrokerRole.OPERATOR, BrokerRole.BACKUP, BrokerRole.NOTARY, BrokerRole.CONTROL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """NATS subject filters that one user may publish and subscribe to; everything else is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions_of(role: BrokerRole, spiffe_id: SpiffeId, names: Names, own: Sequence[OwnSubject] = ()) -> Permissions:
    """Return the permissions of a workload of `role` under `spiffe_id`: those of an agent, and what its role adds.

    An operator may use the whole JetStream API and push policies, but still cannot publish under another agent's token or
    subscribe to another agent's inbox.
    """
    agent = _agent_permissions(spiffe_id, names, own)
    publish = agent.publish
    if role is BrokerRole.OPERATOR:
        publish = tuple(subject for subject in publish if not subject.startswith("$JS."))
    return Permissions(publish=(*publish, *_added(role, spiffe_id, names)), subscribe=agent.subscribe)


def _added(role: BrokerRole, spiffe_id: SpiffeId, names: Names) -> tuple[str, ...]:
    """Return the subjects that `role` may publish to in addition to an agent's."""
    match role:
        case BrokerRole.EDGE:
            # To tell any agent of approvals, to list what waits anywhere, its own values about tasks of A2A, and the
            # pseudonyms of people.
            return (
                "control.*.approve",
                f"{_API}.CONSUMER.CREATE.{HELD}.*.held.*.task.>",
                f"{_API}.CONSUMER.CREATE.{STATE}.*.state.{names.token(spiffe_id)}.a2a.>",
                "people.*",
                f"{_API}.DIRECT.GET.{PEOPLE}.people.*",
            )
        case BrokerRole.EXIT:
            # The users' tokens that the edge keeps, encrypted.
            return (f"{_API}.DIRECT.GET.{STATE}.state.{names.token(names.id_of('edge'))}.token.*",)
        case BrokerRole.NOTARY | BrokerRole.CONTROL:
            # To read AUDIT, to which it adds under its own token only. A control process also lists consumers, and reads how
            # many requests to the API were refused.
            shown = (f"{_API}.INFO", *(f"{_API}.CONSUMER.LIST.{stream}" for stream in (TASKS, EVENTS)))
            return (
                f"{_API}.CONSUMER.CREATE.AUDIT.*.audit.>",
                f"{_API}.CONSUMER.MSG.NEXT.AUDIT.*",
                f"{_API}.CONSUMER.DELETE.AUDIT.*",
                *(shown if role is BrokerRole.CONTROL else ()),
            )
        case BrokerRole.REVOKER:
            # What `ObjectStore.replace` needs for one object.
            described = urlsafe_b64encode(REVOCATIONS.encode()).decode()
            return (
                *(f"$O.{POLICIES}.C.{REVOCATIONS}{turn}" for turn in (0, 1)),
                f"$O.{POLICIES}.M.{described}",
            )
        case BrokerRole.BACKUP:
            # The holder can read all streams, and replace every stream that does not exist. `audit.>` is for the check,
            # which offers the server a copy of the last record.
            return (
                f"{_API}.STREAM.SNAPSHOT.*",
                "$JS.SNAPSHOT.ACK.>",
                f"{_API}.STREAM.RESTORE.*",
                "$JS.SNAPSHOT.RESTORE.>",
                f"{_API}.STREAM.DELETE.*",
                f"{_API}.STREAM.MSG.GET.*",
                "audit.>",
            )
        case BrokerRole.CONSOLE:
            # To read streams by its own consumers, and to list consumers.
            reading = [
                f"{_API}.CONSUMER.{request}"
                for stream in ("AUDIT", TASKS, RESULTS, EVENTS, "DEAD")
                for request in (
                    f"CREATE.{stream}.*",
                    f"CREATE.{stream}.*.>",
                    f"MSG.NEXT.{stream}.*",
                    f"DELETE.{stream}.*",
                )
            ]
            # The markers state until when tasks wait for an approval.
            held = [f"{_API}.CONSUMER.CREATE.{HELD}.*.held.*.{subject}" for subject in ("schedule.*", "wait.>")]
            return (*reading, *held, *(f"{_API}.CONSUMER.LIST.{stream}" for stream in (TASKS, EVENTS)))
        case BrokerRole.OPERATOR:
            # In another region it may ask how the stream is that this region mirrors.
            return (f"{_API}.>", "$JS.*.API.STREAM.INFO.AUDIT", "$JS.ACK.>", f"$O.{POLICIES}.>")
        case BrokerRole.AGENT:
            return ()


def _agent_permissions(spiffe_id: SpiffeId, names: Names, own: Sequence[OwnSubject]) -> Permissions:
    """Return the permissions of an agent, whatever it handles.

    An agent publishes tasks, cancels, schedules and calls to any agent, answers to the part of any inbox where they are
    read, and statuses to any requester, because these subjects name their reader. All else (events, records, refusals, dead
    letters, values) it publishes under its own token only. It subscribes to its calls and its inbox. Messages in streams
    (its tasks and statuses, all events) come to that inbox through consumers. Of the JetStream API it may use exactly the
    subjects that its own consumers need: it cannot read another agent's tasks or the audit stream, or change a stream.
    """
    token = names.token(spiffe_id)
    return Permissions(
        publish=(
            "task.>",
            "control.*.cancel",
            SCHEDULES,
            "call.>",
            "status.>",
            f"event.{token}.>",
            f"dead.{token}.>",
            f"audit.{token}",
            f"refused.{token}",
            f"state.{token}.>",
            f"held.{token}.>",
            f"_INBOX.*.{REPLY_TOKEN}.*.*",
            *(subject.subject for subject in own if subject.kind is not Kind.EVENT or subject.owner == spiffe_id),
            # Shows how streams are declared. STREAM.INFO is left out: it also tells their subjects, which name others' tasks.
            f"{_API}.STREAM.LIST",
            f"{_API}.STREAM.NAMES",
            f"{_API}.DIRECT.GET.STATE.state.{token}.>",
            *_durable(TASKS, token, f"task.{token}.>"),
            *(
                permitted
                for subject in own
                if subject.kind is Kind.TASK and subject.owner == spiffe_id
                for permitted in _durable(TASKS, own_durable(subject.subject), subject.subject)
            ),
            *_durable(TASKS, control_durable(token), f"control.{token}.>"),
            *_durable(TASKS, approval_durable(token), f"control.{token}.approve"),
            *_durable(TASKS, schedule_durable(token), f"control.{token}.schedule"),
            *_durable(EVENTS, token, ">"),
            f"{_API}.CONSUMER.CREATE.EVENTS.{token}",
            # Every agent needs to know what was canceled; these values name messages by their hashes.
            f"{_API}.CONSUMER.CREATE.{STATE}.*.{STOPS}",
            f"{_API}.CONSUMER.MSG.NEXT.{STATE}.*",
            f"{_API}.CONSUMER.DELETE.{STATE}.*",
            # Values that outlive a day: its own, what waits for an answer to it, stops, and the key books of notaries.
            *(
                f"{_API}.CONSUMER.CREATE.{HELD}.*.{subject}"
                for subject in (f"held.{token}.>", f"held.*.wait.{token}.*", "held.*.stop.*.*", "held.*.keys")
            ),
            f"{_API}.CONSUMER.MSG.NEXT.{HELD}.*",
            f"{_API}.CONSUMER.DELETE.{HELD}.*",
            # Each reader of statuses has its own consumer, whose random name no other workload can guess.
            f"{_API}.CONSUMER.CREATE.{RESULTS}.*.status.{token}.*",
            f"{_API}.CONSUMER.MSG.NEXT.{RESULTS}.*",
            f"{_API}.CONSUMER.DELETE.{RESULTS}.*",
            *_bucket_reader(POLICIES),
        ),
        subscribe=(
            f"{names.inbox_prefix(spiffe_id)}>",
            f"call.{token}.*",
            *(subject.subject for subject in own if subject.kind is Kind.CALL and subject.owner == spiffe_id),
        ),
    )


def _bucket_reader(bucket: str) -> tuple[str, ...]:
    """Return the permissions to follow a bucket of the object store; its contents are signed and not secret."""
    stream = f"OBJ_{bucket}"
    return (
        f"{_API}.DIRECT.GET.{stream}.$O.{bucket}.M.*",
        f"{_API}.CONSUMER.CREATE.{stream}.*.$O.{bucket}.>",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.*",
        f"{_API}.CONSUMER.DELETE.{stream}.*",
    )


def _durable(stream: str, consumer: str, filters: str) -> tuple[str, ...]:
    """Return the permissions for the durable `consumer`; the server checks that its one filter is the one in the subject."""
    return (
        f"{_API}.CONSUMER.CREATE.{stream}.{consumer}.{filters}",
        f"{_API}.CONSUMER.INFO.{stream}.{consumer}",
        # When the server of a consumer is away, a process of the agent moves it (`bus/nats/consumer_binding`).
        f"{_API}.CONSUMER.DELETE.{stream}.{consumer}",
        f"{_API}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
    )
