"""What requester and log are told of an error beside its code: nothing, or, where all is one developer's own, its text.

Texts of errors may hold what a body or a resource says. They are told only where the settings say that it is for development
(`sealbus dev`), and in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sealbus.bus.routing.routes import Route
from sealbus.bus.sending.status import NOTE_BYTES
from sealbus.envelopes.errors import HandlingError, SealbusError
from sealbus.envelopes.message.kinds import Kind

__all__ = ["TellDetail", "as_note", "tell_nothing", "tell_text", "verbs_served"]

TellDetail = Callable[[SealbusError], str]
"""Returns what is told of an error, as a note can hold it."""


def tell_nothing(error: SealbusError) -> str:
    """Return nothing."""
    del error
    return ""


def tell_text(error: SealbusError) -> str:
    """Return the detail of an error, or, of a handler that failed, its own exception, as a note can hold it."""
    cause = error.__cause__
    text = error.detail
    if isinstance(error, HandlingError) and cause is not None:
        text = f"{type(cause).__name__}: {cause}"
    return as_note(text)


def verbs_served(routes: Iterable[Route]) -> str:
    """Return which tasks and calls there are at these routes, for who asked for another."""
    found = {route.action: f"{route.action} (a {route.kind})" for route in routes if route.kind is not Kind.EVENT}
    return f"there is {', '.join(found.values()) or 'no task and no call'}"


def as_note(text: str) -> str:
    """Return `text` as a note of a status can hold it: without control characters, and cut."""
    plain = "".join(one if one.isprintable() else " " for one in text)
    return plain.encode(errors="replace")[:NOTE_BYTES].decode(errors="ignore").strip()
