"""The history of a simulated site, as somebody sees it who stands beside it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["DATED_WRONG", "NOT_GRANTED", "Event", "What"]

DATED_WRONG: Final = "dated wrong"
"""Of a task whose date nobody accepts."""
NOT_GRANTED: Final = "not granted"
"""Of a task that may not follow from the one that it follows from."""


class What(StrEnum):
    """The kinds of events."""

    SUBMITTED = "submitted"
    """A sender was told that its task is stored; `message` is its id, `text` says why nobody
    handles it: `DATED_WRONG` if its sender's clock was wrong, or `NOT_GRANTED`."""
    BEGAN = "began"
    """A handler began with a task; `text` is the verb."""
    PUT_OFF = "put off"
    """A handler looked at a task and put it off, which is an attempt; `text` is the verb."""
    DONE = "done"
    """A handler has done what the task is about; `text` is the verb."""
    RECORDED = "recorded"
    """A stored record says that a message was allowed."""
    LOST = "lost"
    """A stored record was lost by the broker, after it had been acknowledged."""
    UNWANTED = "unwanted"
    """A sender asks that its task is canceled."""
    CANCELED = "canceled"
    """A sender was told that its cancel is in force."""
    SAID = "said"
    """A person gives a verdict on a task that waits for an approval; `text` is the verdict."""
    COUNTED = "counted"
    """A person was told that the verdict counts; `text` is the verdict."""
    TOLD = "told"
    """A reader, which is `host`, was told that a task has ended; `text` is state and code."""
    ASKED = "asked"
    """A reader was told that a task has not ended."""
    SIGNED = "signed"
    """The notary published a checkpoint; `text` is its sequence in AUDIT."""
    FOLLOWS = "follows"
    """A stored task follows from another, whose id is `text`."""
    SENT = "sent"
    """A task that a schedule sent is stored; `number` names the tick, `text` is the schedule and the tick's time, seconds."""
    HALTED = "halted"
    """Somebody was told that the schedule `text` is paused or removed."""
    RESUMED = "resumed"
    """Somebody asks that the paused schedule `text`, which ticks again and again, go on."""
    REVOKED = "revoked"
    """Somebody was told that the revocation of `text` is published."""
    DECIDED = "decided"
    """The policy of a process allowed a message, after revocations were looked at."""
    FAULT = "fault"
    """Something was broken, or mended; `text` says what."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: when it was (seconds), where, and which task it is about, if it is about one."""

    at: float
    host: str
    what: What
    number: int = 0
    message: str = ""
    text: str = ""
