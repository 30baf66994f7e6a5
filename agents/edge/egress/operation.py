"""The operations of an API that may be requested: methods with templates of paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import ConfigurationError

RESERVED: Final = frozenset({"api", "host", "method", "template"})
"""Properties of the resource; no variable of a template may have such a name."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_TEMPLATE: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+|/\{[a-z][a-z0-9_]{0,31}\})+/?|/")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
"""RFC 3986 section 3.3, without the empty segment."""
_NEEDLESS: Final = re.compile(r"%(?:2[DEde]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
"""An unreserved character, encoded (RFC 3986 section 6.2.2.2): `%6de` would be another name for `me`, the next operation."""
_SEGMENT_BYTES: Final = 256
_UNSAFE: Final = frozenset("/\\%;?#")
"""Characters that a value must not hold, even encoded: the API could read the path differently.

A percent sign would be another layer of encoding, and `;` begins parameters for some servers.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one template: `GET /customers/{customer}`; each variable stands for one segment of a path."""

    method: str
    template: str

    @classmethod
    def parse(cls, text: str) -> Operation:
        """Return the operation in `text`; raise `ConfigurationError` for any other text."""
        method, _, template = text.partition(" ")
        names = [name[1:-1] for name in template.split("/") if name.startswith("{")]
        if method not in _METHODS or _TEMPLATE.fullmatch(template) is None or not _plain(template):
            raise ConfigurationError(f"{text[:255]!r} is no operation: write one such as 'GET /customers/{{customer}}'")
        if len(set(names)) != len(names) or not RESERVED.isdisjoint(names):
            raise ConfigurationError(
                f"{text[:255]!r}: each variable has a name of its own, and none of {', '.join(sorted(RESERVED))}"
            )
        return cls(method=method, template=template)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"

    @property
    def shape(self) -> tuple[tuple[bool, str], ...]:
        """The parts of the template, with all variables equal and after texts: equal shapes match the same requests."""
        parts = self.template.split("/")
        return tuple((True, "") if part.startswith("{") else (False, part) for part in parts)

    def match(self, method: str, path: str) -> Mapping[str, str] | None:
        """Return the decoded value of each variable, None if the request is not of this operation.

        A segment that a server could read as another path does not match: empty, `.` or `..`, with an encoded separator, or
        with a character that is encoded needlessly.
        """
        segments, parts = path.split("/"), self.template.split("/")
        if method != self.method or len(segments) != len(parts):
            return None
        values: dict[str, str] = {}
        for segment, part in zip(segments, parts, strict=True):
            if not part.startswith("{"):
                if segment != part:
                    return None
                continue
            value = _decoded(segment)
            if value is None:
                return None
            values[part[1:-1]] = value
        return values


def _plain(template: str) -> bool:
    return not {".", ".."} & set(template.split("/"))


def _decoded(segment: str) -> str | None:
    """Return the text that a segment stands for, None if servers could read it differently."""
    if len(segment) > _SEGMENT_BYTES or _SEGMENT.fullmatch(segment) is None or _NEEDLESS.search(segment):
        return None
    try:
        value = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None
    if value in {".", ".."} or not _UNSAFE.isdisjoint(value) or not is_text(value):
        return None
    return value
