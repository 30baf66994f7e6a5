"""Title and remedy of each reason for a denial. They are data of the policy, and signed with it.

The library has the words for its own reasons, `data.sealbus.lib.reasons`. A project adds and replaces words in
`sealbus/reasons/data.json`::

    {"too_much_at_once": {"title": "this is too much for one order", "remedy": "order in several parts"}}

They are for people who want to know why. No decision reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.lint.module import LIBRARY

OWN_REASONS: Final = ("sealbus", "reasons")
"""The path of a project's own document in the data."""
MOST_LETTERS: Final = 256
"""Most letters of a title, and of a remedy. Each is a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonWords:
    """The meaning of a reason, and its remedy. Each is a line of plain text; `remedy` may be empty."""

    title: str
    remedy: str


def reason_words(policy: Bundle | DataDocument) -> Mapping[str, ReasonWords]:
    """Return the words of each reason in a bundle or its data. A project's own words replace those of the library.

    Raises `ValueError` for a malformed document, which no checked bundle has.
    """
    data = policy.data if isinstance(policy, Bundle) else policy
    words: dict[str, ReasonWords] = {}
    for path in ((*LIBRARY, "reasons"), OWN_REASONS):
        words |= {reason: _words(path, reason, entry) for reason, entry in _document(data, path).items()}
    return MappingProxyType(words)


def _document(data: DataDocument, path: tuple[str, ...]) -> DataDocument:
    value: Json = data
    for name in path:
        value = value.get(name, {}) if isinstance(value, dict) else None
    if isinstance(value, dict):
        return value
    raise ValueError(f"data.{'.'.join(path)} is not an object of words by reason")


def _words(path: tuple[str, ...], reason: str, entry: Json) -> ReasonWords:
    title, remedy = (entry.get("title"), entry.get("remedy")) if isinstance(entry, dict) else (None, None)
    lines = [
        line for line in (title, remedy) if isinstance(line, str) and line.isprintable() and len(line) <= MOST_LETTERS
    ]
    if not isinstance(entry, dict) or entry.keys() != {"title", "remedy"} or len(lines) < 2 or not title:
        text = f'{reason[:64]!r} of data.{".".join(path)} is not {{"title": ..., "remedy": ...}}, lines of text'
        raise ValueError(f"{text} of at most {MOST_LETTERS} letters")
    return ReasonWords(title=lines[0], remedy=lines[1])
