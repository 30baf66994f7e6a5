"""Streams as code: the frozen declaration of each stream of sealbus, and its configuration for the JetStream API.

::

    TASKS      task.>      durable work, and what   24 h 5 min, keeps what was acknowledged, refuses when full,
               control.>   agents are told about it nothing can be deleted
    EVENTS     event.>     facts, fan-out           the same: what is handled needs the replay guard
    RESULTS    status.>    task life cycle          24 h 5 min, refuses when full
    DEAD       dead.>      what was not handled     30 days, drops the oldest
    AUDIT      audit.>     evidence                 for ever, refuses when full, nothing can be deleted
    REFUSALS   refused.>   counts and samples       30 days, small, drops the oldest: never blocks handling
    STATE      state.>     values by key            24 h 5 min, the last of each subject, refuses when full
    HELD       held.>      values that outlive a    32 days, every version, refuses when full,
                           day                      nothing can be deleted

The replay guard of SPEC.md section 7 needs these settings because the server rebuilds its memory of message ids from
what is stored: nothing may be removed from a stream while a copy of it would still be accepted. For the same reason
nobody may purge TASKS or EVENTS: after a flood an operator raises `max_bytes` (`sealbus streams apply`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

from sealbus.bus.nats.api import NANOSECONDS
from sealbus.bus.ports import JsonObject
from sealbus.bus.stream_names import AUDIT, CONTROL, DEAD, EVENTS, HELD, REFUSALS, RESULTS, STATE, SUBJECTS, TASKS
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject

KEPT_SECONDS: Final = 86_700
"""24 h 5 min: the longest life of a message, plus 5 min for clocks and restarts (SPEC.md section 7)."""

DUPLICATE_WINDOW: Final = 120
"""Seconds; twice the time within which a message must be stored after it was made (SPEC.md section 7)."""

HELD_SECONDS: Final = 32 * 86_400
"""How long a value in HELD is kept: longer than anything may wait, which is 30 days."""

MAX_CONSUMERS: Final = 10_000
"""Consumers that one stream may have: nats-server 2.15 allows 1,000 where the stream does not say, and refuses more by 10026.

An agent has four of TASKS. Each takes 50 kB of the server's memory (measured up to 32,000): all together half of the 1 GiB
that the chart gives it.
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
"""Default sizes in bytes. TASKS and AUDIT have none: a full TASKS refuses senders, a full AUDIT stops all handling, and
how soon that happens is for the operator to decide."""


class Guard(Enum):
    """What acceptance relies on a stream for, and so how much of it a consumer checks."""

    LIVE = "live"
    """Deliveries of the live profile: step 6 holds only if the stream remembers ids (SPEC.md section 7)."""
    EVIDENCE = "evidence"
    """Signed records: nothing may be removed, and replicas share the guard of calls through its memory of ids."""
    STATE = "state"
    """Values by key: a claim must not be forgotten while its message could be delivered again."""
    HELD = "held"
    """Values of which the newest genuine version counts: without its newer versions an older one would count again."""
    OBJECTS = "objects"
    """Parts of an object store, each with the digest that its description has: what counts is signed (`object_store`)."""
    NONE = "none"
    """Statuses are counted once by their readers; dead letters and refusals gate nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One declared stream. `max_age` and `duplicate_window` are seconds; a `max_age` of 0 means no limit."""

    name: str
    description: str
    subjects: tuple[str, ...]
    guard: Guard
    max_bytes: int
    discard: Literal["new", "old"] = "new"
    max_age: int = KEPT_SECONDS
    duplicate_window: int = DUPLICATE_WINDOW
    deny_delete: bool = False
    deny_purge: bool = False
    per_subject: int = -1
    """Messages kept per subject; -1 for no bound."""
    direct: bool = False
    """Whether a message may be read by its subject, to which NATS permissions can limit a reader."""
    rollup: bool = False
    """Whether a message may replace those before it, as an object store needs: there no id has to be remembered."""
    replicas: int = 1

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
        return config


def declared_streams(
    max_bytes: Mapping[str, int], *, own: Sequence[OwnSubject] = (), replicas: int = 1
) -> tuple[Stream, ...]:
    """Return the eight declared streams, in the order of `SUBJECTS`.

    `max_bytes` is by stream name; TASKS and AUDIT must be in it. Own subjects join TASKS or EVENTS by their kind; calls
    are never stored. Raises `ConfigurationError` for a size that is missing, unknown or not positive.
    """
    for name in max_bytes:
        if name not in SUBJECTS:
            raise ConfigurationError(f"streams.max_bytes.{name.lower()}: no such stream")
    sizes = {**DEFAULT_MAX_BYTES, **max_bytes}
    for name in SUBJECTS:
        if name not in sizes:
            raise ConfigurationError(
                f"streams.max_bytes.{name.lower()} is not set: say how much {name} may hold, for instance 1GiB"
            )
    tasks = tuple(sorted(entry.subject for entry in own if entry.kind is Kind.TASK))
    events = tuple(sorted(entry.subject for entry in own if entry.kind is Kind.EVENT))
    return (
        Stream(
            name=TASKS,
            description="sealbus: durable work",
            subjects=(SUBJECTS[TASKS], CONTROL, *tasks),
            guard=Guard.LIVE,
            max_bytes=sizes[TASKS],
            deny_delete=True,
            deny_purge=True,
            replicas=replicas,
        ),
        Stream(
            name=EVENTS,
            description="sealbus: facts for whoever listens",
            subjects=(SUBJECTS[EVENTS], *events),
            guard=Guard.LIVE,
            max_bytes=sizes[EVENTS],
            deny_delete=True,
            deny_purge=True,
            replicas=replicas,
        ),
        Stream(
            name=RESULTS,
            description="sealbus: life cycle and results of tasks",
            subjects=(SUBJECTS[RESULTS],),
            guard=Guard.NONE,
            max_bytes=sizes[RESULTS],
            replicas=replicas,
        ),
        Stream(
            name=DEAD,
            description="sealbus: what could not be handled, verbatim",
            subjects=(SUBJECTS[DEAD],),
            guard=Guard.NONE,
            max_bytes=sizes[DEAD],
            discard="old",
            max_age=_MONTH,
            replicas=replicas,
        ),
        Stream(
            name=AUDIT,
            description="sealbus: signed decision and outcome records",
            subjects=(SUBJECTS[AUDIT],),
            guard=Guard.EVIDENCE,
            max_bytes=sizes[AUDIT],
            max_age=0,
            deny_delete=True,
            deny_purge=True,
            replicas=replicas,
        ),
        Stream(
            name=REFUSALS,
            description="sealbus: counts and samples of what failed verification, unsigned",
            subjects=(SUBJECTS[REFUSALS],),
            guard=Guard.NONE,
            max_bytes=sizes[REFUSALS],
            discard="old",
            max_age=_MONTH,
            replicas=replicas,
        ),
        Stream(
            name=STATE,
            description="sealbus: values by key, the last of each",
            subjects=(SUBJECTS[STATE],),
            guard=Guard.STATE,
            max_bytes=sizes[STATE],
            per_subject=1,
            direct=True,
            replicas=replicas,
        ),
        Stream(
            name=HELD,
            description="sealbus: values that outlive a day, every version",
            subjects=(SUBJECTS[HELD],),
            guard=Guard.HELD,
            max_bytes=sizes[HELD],
            max_age=HELD_SECONDS,
            deny_delete=True,
            deny_purge=True,
            replicas=replicas,
        ),
    )


def control_durable(token: str) -> str:
    """Return the name of the durable consumer of cancels (`control.<token>.cancel`): they do not wait behind tasks.

    No agent can have this name: agent names never begin with `id-`, and other tokens continue in hex digits only.
    """
    return f"id-ctl-{token}"


def approval_durable(token: str) -> str:
    """Return the name of the durable consumer of `control.<token>.approve`, which is named as `control_durable` is.

    Its own: an approval runs the handler of a task, and cancels do not wait behind that either.
    """
    return f"id-apr-{token}"


def schedule_durable(token: str) -> str:
    """Return the name of the durable consumer of `control.<token>.schedule`, which is named as `control_durable` is.

    Its own, because a consumer with several filters is created under no subject that permissions could tell them by.
    """
    return f"id-sch-{token}"


def own_durable(subject: str) -> str:
    """Return the name of the durable consumer of an own task subject, which has a consumer to itself.

    The server limits a consumer to a single filter, which is part of the API's subject; several filters in one consumer
    would not limit its owner to the own subject. No agent can have this name: agent names never begin with `id-`, and the
    token of an ID without a name continues in hex digits only.
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
