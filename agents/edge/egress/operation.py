"""What of an API may be requested: methods with templates of paths, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import ConfigurationError

RESERVED: Final = frozenset({"api", "host", "method", "template"})
"""Properties of the resource that a variable of a template cannot have the name of."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_TEMPLATE: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+|/\{[a-z][a-z0-9_]{0,31}\})+/?|/")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
"""RFC 3986 section 3.3, without what is empty."""
_NEEDLESS: Final = re.compile(r"%(?:2[DEde]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]|7[Ee])")
"""An unreserved character, encoded (RFC 3986 section 6.2.2.2): `%6de` would be another name for `me`, the next operation."""
_SEGMENT_BYTES: Final = 256
_UNSAFE: Final = frozenset("/\\%;?#")
"""What a value does not hold, even encoded: the API's own reading of the path could differ from ours.

A percent sign would be one more layer of encoding, and `;` begins parameters to some servers.
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
        """The parts of the template, all variables alike and after any text: which requests are of it, and of it first."""
        parts = self.template.split("/")
        return tuple((True, "") if part.startswith("{") else (False, part) for part in parts)

    def match(self, method: str, path: str) -> Mapping[str, str] | None:
        """Return the decoded value of each variable, and None unless this is a request of this operation.

        No segment is one that a server could take for another path: empty, `.` or `..`, or with a separator encoded in it,
        or with a character encoded that need not be.
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
    """Return the text that a segment stands for; None for one that has more than one meaning."""
    if len(segment) > _SEGMENT_BYTES or _SEGMENT.fullmatch(segment) is None or _NEEDLESS.search(segment):
        return None
    try:
        value = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None
    if value in {".", ".."} or not _UNSAFE.isdisjoint(value) or not is_text(value):
        return None
    return value
