"""Streams as code: the frozen declaration of each stream of sealbus, and its configuration for the JetStream API.

::

    TASKS      task.>      durable work, and        24 h 5 min, keeps acknowledged messages, refuses when full,
               control.>   messages that control it nothing can be deleted
    EVENTS     event.>     facts, fan-out           the same: handled messages need the replay guard
    RESULTS    status.>    task life cycle          24 h 5 min, refuses when full
    DEAD       dead.>      unhandled messages       30 days, drops the oldest
    AUDIT      audit.>     evidence                 forever, refuses  when full, nothing can be deleted
    REFUSALS   refused.>   counts and samples       30 days, small, drops the oldest: never blocks handling
    STATE      state.>     values by key            24 h 5 min, the last of each subject, refuses when full
    HELD       held.>      values that outlive a    32 days, every version, refuses when full,
                           day                      nothing can be deleted
    PEOPLE     people.>    the pseudonym of each    until it is deleted, refuses when full;
                           person, at random        only where `max_bytes` has its size

The replay guard of SPEC.md section 7 needs these settings, because the server rebuilds its memory of message ids from the
stored messages. A message must stay in its stream while a copy of it would still be accepted. For the same reason TASKS and
EVENTS must not be purged: after a flood an operator raises `max_bytes` (`sealbus streams apply`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

from sealbus.bus.nats.api import NANOSECONDS
from sealbus.bus.ports import JsonObject
from sealbus.bus.stream_names import (
    AUDIT,
    CONTROL,
    DEAD,
    EVENTS,
    HELD,
    PEOPLE,
    REFUSALS,
    RESULTS,
    STATE,
    SUBJECTS,
    TASKS,
)
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject

KEPT_SECONDS: Final = 86_700
"""24 h 5 min: the longest life of a message, plus 5 min for clocks and restarts (SPEC.md section 7)."""

DUPLICATE_WINDOW: Final = 120
"""Seconds; twice the time within which a message must be stored after it was made (SPEC.md section 7)."""

HELD_SECONDS: Final = 32 * 86_400
"""How long HELD keeps a value: longer than the 30 days for which a task may wait."""

MAX_CONSUMERS: Final = 10_000
"""Consumers that one stream may have. Without this setting nats-server 2.15 allows 1,000 and refuses more by error 10026.

An agent has four consumers of TASKS. A consumer takes 50 kB of the server's memory (measured up to 32,000), so that 10,000
take half of the 1 GiB that the chart gives the server.
"""

_MONTH: Final = 30 * 86_400
_MEBIBYTE: Final = 1_048_576
_REPLICAS: Final = (1, 3, 5)

DEFAULT_MAX_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {
        EVENTS: 1_024 * _MEBIBYTE,
        RESULTS: 1_024 * _MEBIBYTE,
        DEAD: 256 * _MEBIBYTE,
        REFUSALS: 64 * _MEBIBYTE,
        STATE: 512 * _MEBIBYTE,
        HELD: 1_024 * _MEBIBYTE,
    }
)
"""Default sizes in bytes. TASKS and AUDIT have none, because the operator decides how soon they are full: a full TASKS
refuses senders, and a full AUDIT stops all handling."""


class Guard(Enum):
    """What acceptance relies on in a stream, which decides the settings that a consumer checks."""

    LIVE = "live"
    """Messages of the live profile. Acceptance step 6 holds only if the stream remembers their ids (SPEC.md section 7)."""
    EVIDENCE = "evidence"
    """Signed records. None may be removed. Replicas share the replay guard of calls through the stream's memory of ids."""
    STATE = "state"
    """Values by key. A claim must stay while its message could be delivered again."""
    HELD = "held"
    """Values whose newest genuine version counts. If that version were removed, an older version would count again."""
    MIRROR = "mirror"
    """Copies of signed records that the server itself brings from another stream. None may be removed."""
    OBJECTS = "objects"
    """Parts of an object store. Each description has a digest, and content that matters is signed (`object_store`)."""
    PEOPLE = "people"
    """Pseudonyms that have no other source. With a new row a person would get a second name, which no revocation names."""
    NONE = "none"
    """Statuses, which their readers count once, and dead letters and refusals, which gate nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One declared stream. `max_age` and `duplicate_window` are seconds; a `max_age` of 0 means no limit."""

    name: str
    description: str
    guard: Guard
    subjects: tuple[str, ...] = ()
    max_bytes: int = 1
    """In `declared_streams` the deployment's."""
    discard: Literal["new", "old"] = "new"
    max_age: int = KEPT_SECONDS
    duplicate_window: int = DUPLICATE_WINDOW
    deny_delete: bool = False
    deny_purge: bool = False
    per_subject: int = -1
    """Messages kept per subject; -1 for no bound."""
    direct: bool = False
    """Whether messages can be read by subject, so that NATS permissions can limit a reader to subjects."""
    rollup: bool = False
    """Whether a message may replace earlier ones, as an object store needs; its stream need not remember ids."""
    replicas: int = 1
    mirror: Mapping[str, object] | None = None
    """The stream that the server copies, in the form of the JetStream API; a mirror has no subjects."""
    metadata: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigurationError(f"stream {self.name}: max_bytes must be at least 1, not {self.max_bytes}")
        if self.replicas not in _REPLICAS:
            raise ConfigurationError(f"stream {self.name}: replicas must be 1, 3 or 5, not {self.replicas}")

    def config(self) -> JsonObject:
        """Return the declared part of a JetStream stream configuration; all other settings are the operator's choice."""
        config: JsonObject = {
            "name": self.name,
            "description": self.description,
            "subjects": list(self.subjects),
            "retention": "limits",
            "storage": "file",
            "discard": self.discard,
            "max_age": self.max_age * NANOSECONDS,
            "max_bytes": self.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": self.per_subject,
            "max_msg_size": -1,
            "max_consumers": MAX_CONSUMERS,
            "duplicate_window": self.duplicate_window * NANOSECONDS,
            "deny_delete": self.deny_delete,
            "deny_purge": self.deny_purge,
            "num_replicas": self.replicas,
        }
        if self.direct:
            config["allow_direct"] = True
        if self.rollup:
            config["allow_rollup_hdrs"] = True
        if self.mirror is not None:
            # What is copied was deduplicated where it was stored.
            del config["subjects"], config["duplicate_window"]
            config["mirror"] = dict(self.mirror)
        if self.metadata is not None:
            config["metadata"] = dict(self.metadata)
        return config


_DECLARED: Final = (
    Stream(name=TASKS, description="sealbus: durable work", guard=Guard.LIVE, deny_delete=True, deny_purge=True),
    Stream(
        name=EVENTS,
        description="sealbus: facts for whoever listens",
        guard=Guard.LIVE,
        deny_delete=True,
        deny_purge=True,
    ),
    Stream(name=RESULTS, description="sealbus: life cycle and results of tasks", guard=Guard.NONE),
    Stream(
        name=DEAD,
        description="sealbus: what could not be handled, verbatim",
        guard=Guard.NONE,
        discard="old",
        max_age=_MONTH,
    ),
    Stream(
        name=AUDIT,
        description="sealbus: signed decision and outcome records",
        guard=Guard.EVIDENCE,
        max_age=0,
        deny_delete=True,
        deny_purge=True,
    ),
    Stream(
        name=REFUSALS,
        description="sealbus: counts and samples of what failed verification, unsigned",
        guard=Guard.NONE,
        discard="old",
        max_age=_MONTH,
    ),
    Stream(
        name=STATE,
        description="sealbus: values by key, the last of each",
        guard=Guard.STATE,
        per_subject=1,
        direct=True,
    ),
    Stream(
        name=HELD,
        description="sealbus: values that outlive a day, every version",
        guard=Guard.HELD,
        max_age=HELD_SECONDS,
        deny_delete=True,
        deny_purge=True,
    ),
    Stream(
        name=PEOPLE,
        description="sealbus: the pseudonyms of people",
        guard=Guard.PEOPLE,
        max_age=0,
        per_subject=1,
        direct=True,
    ),
)
"""The streams, without the subjects, sizes and replicas that a deployment decides."""


def declared_streams(
    max_bytes: Mapping[str, int], *, own: Sequence[OwnSubject] = (), replicas: int = 1
) -> tuple[Stream, ...]:
    """Return the declared streams, in the order of `SUBJECTS`: eight, and PEOPLE if `max_bytes` has its size.

    `max_bytes` has sizes by stream name, and must have those of TASKS and AUDIT. The deployment's `own` subjects join TASKS
    or EVENTS by their kind; calls are never stored. Raises `ConfigurationError` for a size that is missing, unknown or not
    positive.
    """
    for name in max_bytes:
        if name not in SUBJECTS:
            raise ConfigurationError(f"streams.max_bytes.{name.lower()}: no such stream")
    sizes = {**DEFAULT_MAX_BYTES, **max_bytes}
    for name in SUBJECTS:
        if name not in sizes and name != PEOPLE:
            raise ConfigurationError(
                f"streams.max_bytes.{name.lower()} is not set: say how much {name} may hold, for instance 1GiB"
            )
    more = {
        TASKS: (CONTROL, *sorted(subject.subject for subject in own if subject.kind is Kind.TASK)),
        EVENTS: tuple(sorted(subject.subject for subject in own if subject.kind is Kind.EVENT)),
    }
    return tuple(
        replace(
            stream,
            subjects=(SUBJECTS[stream.name], *more.get(stream.name, ())),
            max_bytes=sizes[stream.name],
            replicas=replicas,
        )
        for stream in _DECLARED
        if stream.name in sizes
    )


def control_durable(token: str) -> str:
    """Return the name of the durable consumer of `control.<token>.cancel`; with their own, cancels do not wait behind tasks.

    No agent can have this name: agent names never begin with `id-`, and other tokens continue in hex digits only.
    """
    return f"id-ctl-{token}"


def approval_durable(token: str) -> str:
    """Return the name of the durable consumer of `control.<token>.approve`; see `control_durable`.

    Approvals have a consumer of their own because they run the task's handler, and cancels must not wait behind that.
    """
    return f"id-apr-{token}"


def schedule_durable(token: str) -> str:
    """Return the name of the durable consumer of `control.<token>.schedule`; see `control_durable`.

    Schedules have a consumer of their own because a permission can only name a consumer with a single filter.
    """
    return f"id-sch-{token}"


def own_durable(subject: str) -> str:
    """Return the name of the durable consumer of one of the deployment's own task subjects.

    Each has a consumer with a single filter, which is part of the API's subject, so that permissions can limit its owner to
    that subject. No agent can have this name; see `control_durable`.
    """
    return f"id-own-{hashlib.sha256(subject.encode()).hexdigest()[:32]}"


def stream_named(streams: Sequence[Stream], name: str) -> Stream:
    """Return the declared stream `name`; raise `ConfigurationError` if there is none."""
    for stream in streams:
        if stream.name == name:
            return stream
    raise ConfigurationError(
        f"stream {name}: not declared; the streams are {', '.join(stream.name for stream in streams)}"
    )
