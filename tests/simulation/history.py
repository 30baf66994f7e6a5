"""The history of a simulated site, as somebody sees it who stands beside it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["DATED_WRONG", "Event", "What"]

DATED_WRONG: Final = "dated wrong"
"""Of a task whose date nobody accepts."""


class What(StrEnum):
    """The kinds of events."""

    SUBMITTED = "submitted"
    """A sender was told that its task is stored; `message` is its id, `text` is `DATED_WRONG` if its
    sender's clock was wrong."""
    BEGAN = "began"
    """A handler began with a task; `text` is the verb."""
    DONE = "done"
    """A handler has done what the task is about; `text` is the verb."""
    RECORDED = "recorded"
    """A stored record says that a message was allowed."""
    LOST = "lost"
    """A stored record was lost by the broker, after it had been acknowledged."""
    CANCELED = "canceled"
    """A sender was told that its cancel is in force."""
    TOLD = "told"
    """A reader, which is `host`, was told that a task has ended; `text` is state and code."""
    ASKED = "asked"
    """A reader was told that a task has not ended."""
    SIGNED = "signed"
    """The notary published a checkpoint; `text` is its sequence in AUDIT."""
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
