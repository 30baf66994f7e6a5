"""The detail of an error that requesters and the log get beside its code: none, or its text in development.

The text of an error may hold parts of a body or a resource. So it is told only if the settings say that the deployment is for
development (`sealbus dev`), and in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sealbus.bus.routing.routes import Route
from sealbus.bus.sending.status import NOTE_BYTES
from sealbus.envelopes.errors import HandlingError, SealbusError
from sealbus.envelopes.message.kinds import Kind

TellDetail = Callable[[SealbusError], str]
"""Returns the detail of an error, as a note can hold it; empty for none."""


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """The detail beside a code: `of` returns that of an error, `verbs` is that of a verb without a handler."""

    of: TellDetail
    verbs: str = ""


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


NO_DETAIL = ErrorDetail(tell_nothing)
"""Outside of development: errors have their code alone."""


def development_detail(routes: Iterable[Route]) -> ErrorDetail:
    """Return the detail for development: the texts of errors, and the verbs that `routes` serve."""
    return ErrorDetail(tell_text, as_note(verbs_served(routes)))


def verbs_served(routes: Iterable[Route]) -> str:
    """Return a list of the tasks and calls at these routes, for a requester that asked for another verb."""
    served = {route.action: f"{route.action} (a {route.kind})" for route in routes if route.kind is not Kind.EVENT}
    return f"there is {', '.join(served.values()) or 'no task and no call'}"


def as_note(text: str) -> str:
    """Return `text` as a note of a status can hold it: without control characters, and cut."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain.encode(errors="replace")[:NOTE_BYTES].decode(errors="ignore").strip()
