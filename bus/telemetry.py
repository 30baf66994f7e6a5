"""What operators see of a process: counters, rendered as Prometheus text, and one log line per notable message.

Labels may hold what peers send (a subject, a SPIFFE ID), so the number of label sets per counter is bounded: further ones
are counted under `other`. Counters are plain integers, for one thread only, without locks.

A peer that can cause refusals or denials can do so thousands of times a second, and the audit stream, the counters and the
refusals hold what happened to each message. So log lines are rate-limited; they name who, where, what and why, and hold no
payload, token or key.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping

from sealbus.envelopes.message.header import Header

__all__ = ["CONTENT_TYPE", "Counters", "OperatorLog"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of `Counters.render` (Prometheus text exposition format 0.0.4)."""

OTHER = "other"
"""The value of all labels beyond the bound."""

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL_BYTES = 256
"""Longest label value that is kept, in characters: the bound of a subject (SPEC.md section 1)."""


class Counters:
    """Counters by name and labels. A counter's first use fixes its label names; a different set is an error in the code.

    `label_sets` bounds the distinct label sets per counter.
    """

    def __init__(self, *, label_sets: int = 512) -> None:
        if label_sets < 1:
            raise ValueError("label_sets must be at least 1")
        self._label_sets = label_sets
        self._labels: dict[str, tuple[str, ...]] = {}
        self._values: dict[str, dict[tuple[str, ...], int]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._help: dict[str, str] = {}

    def describe(self, texts: Mapping[str, str]) -> None:
        """Set the help lines of names for `render`. Names need not have been counted yet."""
        self._help.update(texts)

    def add(self, name: str, n: int = 1, /, **labels: str) -> None:
        """Add `n`, 0 or more, to the counter `name` under `labels`; adding 0 shows it before its first event."""
        if n < 0:
            raise ValueError(f"{name} can only count up")
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
            raise ValueError(f"{name!r} is not a valid name for a gauge, or taken")
        self._gauges[name] = read

    def value(self, name: str, /, **labels: str) -> int:
        """Return the count of `name` under exactly `labels`, or over all label sets without `labels`; 0 if there is none."""
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
            raise ValueError(f"{name!r} is not a valid name for a counter, or taken")
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


class OperatorLog:
    """Writes to `log`, at most `most` lines in `seconds`; the next line then says how many were left out."""

    def __init__(
        self, log: logging.Logger, *, most: int = 20, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0
        self._written = 0
        self._left_out = 0

    def message(self, event: str, header: Header, *, action: str, code: str, extra: str = "") -> None:
        """Log what happened to a verified message: `event` in one word, `code` why, `extra` a few words of ours."""
        self._write(
            logging.INFO,
            "%s: %s, message %s on %s from %s, %s%s",
            event,
            action,
            header.id.hex(),
            header.to,
            header.iss,
            code,
            f", {extra}" if extra else "",
        )

    def refused(self, subject: str, *, code: str, step: int) -> None:
        """Log that a delivery on `subject` failed verification; nothing in it is known to be true."""
        # A stranger chooses the subject within our subscription, and it may hold terminal control sequences.
        self._write(logging.INFO, "refused: on %.255a, %s at step %d", subject, code, step)

    def warning(self, text: str, *args: object) -> None:
        """Log a failure of ours that a sender can cause as often as it likes."""
        self._write(logging.WARNING, text, *args)

    def _write(self, level: int, text: str, *args: object) -> None:
        if not self._log.isEnabledFor(level):
            return
        now = self._clock()
        if now >= self._until:
            self._until, self._written = now + self._seconds, 0
        if self._written >= self._most:
            self._left_out += 1
            return
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        if left_out:
            self._log.log(level, text + " (%d such lines were left out before)", *args, left_out)
        else:
            self._log.log(level, text, *args)
