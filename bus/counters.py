"""Counters for operators: plain integers on the event loop, with bounded label sets, rendered as Prometheus text.

What peers send (a subject, a SPIFFE ID) may end up in a label, so the number of label sets per counter is bounded: what
comes on top is counted under `other`, never forgotten and never a reason to grow. Use from one thread only; no locks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

__all__ = ["CONTENT_TYPE", "Counters"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of `Counters.render` (Prometheus text exposition format 0.0.4)."""

OTHER = "other"
"""Value of every label of what is counted beyond the bound."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL_BYTES = 256
"""Longest label value that is kept, in characters; the bound of a subject (SPEC.md section 1)."""


class Counters:
    """Counts by name and labels. A counter's first use fixes its label names; another set is an error in the code.

    `label_sets` bounds the distinct label values per counter.
    """

    def __init__(self, *, label_sets: int = 512) -> None:
        if label_sets < 1:
            raise ValueError("label_sets must be 1 or more")
        self._label_sets = label_sets
        self._labels: dict[str, tuple[str, ...]] = {}
        self._values: dict[str, dict[tuple[str, ...], int]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._help: dict[str, str] = {}

    def describe(self, texts: Mapping[str, str]) -> None:
        """Give names their line of help for `render`. Names need not have been counted yet."""
        self._help.update(texts)

    def add(self, name: str, n: int = 1, /, **labels: str) -> None:
        """Add `n`, 0 or more, to the counter `name` under `labels`; adding 0 makes it show before its first event."""
        if n < 0:
            raise ValueError(f"{name} only counts up")
        names = self._labels.get(name)
        if names is None:
            names = self._declare(name, tuple(sorted(labels)))
        if len(labels) != len(names):
            raise ValueError(f"{name} has the labels {names}")
        try:
            key = tuple([labels[label] for label in names])
        except KeyError as error:
            raise ValueError(f"{name} has the labels {names}") from error
        values = self._values[name]
        if key not in values and len(values) >= self._label_sets:
            key = (OTHER,) * len(names)
        values[key] = values.get(key, 0) + n

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Show what `read` returns at each `render` under `name`. `read` must neither block nor raise."""
        if not _NAME.fullmatch(name) or name in self._values or name in self._gauges:
            raise ValueError(f"{name!r} is no name for a gauge, or taken")
        self._gauges[name] = read

    def value(self, name: str, /, **labels: str) -> int:
        """Return the count of `name` under exactly `labels`, or over all label sets if none is given; else 0."""
        values = self._values.get(name, {})
        if not labels:
            return sum(values.values())
        if set(labels) != set(self._labels.get(name, ())):
            return 0
        return values.get(tuple([labels[label] for label in self._labels[name]]), 0)

    def render(self) -> str:
        """Return all counters and gauges as Prometheus text, sorted by name and label values."""
        lines: list[str] = []
        for name in sorted(self._values):
            lines += self._head(name, "counter")
            for key, count in sorted(self._values[name].items()):
                pairs = zip(self._labels[name], key, strict=True)
                text = ",".join(f'{label}="{_escaped(value[:_LABEL_BYTES])}"' for label, value in pairs)
                lines.append(f"{name}{{{text}}} {count}" if text else f"{name} {count}")
        for name in sorted(self._gauges):
            lines += self._head(name, "gauge")
            lines.append(f"{name} {self._gauges[name]():g}")
        return "".join(f"{line}\n" for line in lines)

    def _declare(self, name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        if name in self._gauges or not all(_NAME.fullmatch(text) for text in (name, *labels)):
            raise ValueError(f"{name!r} is no name for a counter, or taken")
        self._values[name] = {}
        self._labels[name] = labels
        return labels

    def _head(self, name: str, kind: str) -> list[str]:
        text = self._help.get(name)
        about = [f"# HELP {name} {_escaped(text, quotes=False)}"] if text else []
        return [*about, f"# TYPE {name} {kind}"]


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
