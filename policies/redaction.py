"""Parts of an input document taken out before it is recorded, by JSON pointers (RFC 6901)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, cast

from sealbus.envelopes.codec import is_text
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS

__all__ = ["Pointer", "redact"]

_FORM: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}")


class Pointer:
    """A JSON pointer below the whole document. Raises `ConfigurationError` for a text that is none, or over 256 bytes."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        if _FORM.fullmatch(text) is None or not is_text(text, DEFAULT_LIMITS.text_bytes):
            raise ConfigurationError(f"{text!r} is not a JSON pointer such as /action/properties/salary")
        self.text: Final = text
        # RFC 6901 section 4: ~1 first, or ~01 would become a slash.
        self._steps: Final = tuple(step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:])

    def __repr__(self) -> str:
        return f"Pointer({self.text!r})"

    def take_out(self, document: object) -> bool:
        """Put null where this points to inside `document`; tell whether there was anything else before."""
        *way, last = self._steps
        for step in way:
            document = _below(document, step)
        if _below(document, last) is None:
            return False
        if isinstance(document, list):
            document[int(last)] = None
        else:
            cast("dict[str, object]", document)[last] = None
        return True


def redact(document: bytes, pointers: Sequence[Pointer]) -> tuple[bytes, tuple[str, ...]]:
    """Return the input document without what `pointers` point to, null in its place, and the pointers that found anything.

    `document` is one that `input_document` made. The very same bytes come back where nothing was found.
    """
    value = json.loads(document)
    found = tuple(pointer.text for pointer in pointers if pointer.take_out(value))
    if not found:
        return document, ()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), found


def _below(document: object, step: str) -> object:
    """Return the member or item `step` of `document`; None where there is none."""
    if isinstance(document, dict):
        return document.get(step)
    if isinstance(document, list) and _INDEX.fullmatch(step) and int(step) < len(document):
        return document[int(step)]
    return None
