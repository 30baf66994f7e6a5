"""What a requester is told of an error beside its code: nothing, or, where all is one developer's own, the text behind it.

Texts of errors may hold what a body or a resource says. They leave a process only where the settings say that it is for
development (`sealbus dev`), and in tests.
"""

from __future__ import annotations

from collections.abc import Callable

from sealbus.bus.sending.status import NOTE_BYTES
from sealbus.envelopes.errors import HandlingError, SealbusError

__all__ = ["TellDetail", "tell_nothing", "tell_text"]

TellDetail = Callable[[SealbusError], str]
"""Returns what is told of an error, as a note can hold it."""


def tell_nothing(error: SealbusError) -> str:
    """Return nothing."""
    del error
    return ""


def tell_text(error: SealbusError) -> str:
    """Return the detail of an error, or, of a handler that failed, its own exception; what a note cannot hold is cut."""
    cause = error.__cause__
    text = error.detail
    if isinstance(error, HandlingError) and cause is not None:
        text = f"{type(cause).__name__}: {cause}"
    plain = "".join(one if one.isprintable() else " " for one in text)
    return plain.encode(errors="replace")[:NOTE_BYTES].decode(errors="ignore").strip()
