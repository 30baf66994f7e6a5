"""regorus' syntax tree as JSON values: narrowed, and its byte offsets turned into places."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from sealbus.policies.problems import PolicyRefused, Problem
from sealbus.policies.syntax import (
    Place,
)

__all__ = ["SourceText", "as_kind", "as_list", "as_map"]


def as_map(value: object) -> dict[str, object]:
    """Return `value`, which is an object."""
    if not isinstance(value, dict):
        raise TypeError(f"regorus' syntax tree has a {type(value).__name__} where an object belongs")
    return value


def as_list(value: object) -> list[object]:
    """Return `value`, which is an array."""
    if not isinstance(value, list):
        raise TypeError(f"regorus' syntax tree has a {type(value).__name__} where an array belongs")
    return value


def as_kind(node: object) -> tuple[str, dict[str, object]]:
    """Return the two parts of `{"Kind": {...}}`."""
    [(kind, content)] = as_map(node).items()
    return kind, as_map(content)


def _offsets(span: object) -> tuple[int, int]:
    at = as_map(span)
    start, end = at["start"], at["end"]
    if not isinstance(start, int) or not isinstance(end, int):
        raise TypeError("regorus' syntax tree has a span without offsets")
    return start, end


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """The text of the file `path` in UTF-8, in which spans are byte offsets."""

    path: str
    text: bytes
    lines: list[int] = field(init=False)
    """Where each line starts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", [0, *(found.end() for found in re.finditer(b"\n", self.text))])

    def place(self, span: object) -> Place:
        """Return where `span` starts. Regorus' own column of a reference is that of its last part."""
        start, _ = _offsets(span)
        line = bisect_right(self.lines, start)
        before = self.text[self.lines[line - 1] : start]
        return Place(line=line, column=len(before.decode()) + 1)

    def written(self, span: object) -> str:
        """Return what stands at `span`."""
        start, end = _offsets(span)
        return self.text[start:end].decode()

    def follows(self, span: object, text: str) -> bool:
        """Say whether `text` stands right after what stands at `span`."""
        _, end = _offsets(span)
        return self.text.startswith(text.encode(), end)

    def unknown(self, kind: str, span: object) -> PolicyRefused:
        """Return the refusal of a kind of syntax that nobody has compared."""
        place = self.place(span)
        problem = Problem(
            file=self.path, line=place.line, column=place.column, form="unknown", text=f"{kind} is not among the forms"
        )
        return PolicyRefused([problem])
