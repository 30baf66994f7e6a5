"""One line per figure: its name, the measured value, its limit, and whether the limit holds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Figure", "show"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured value with its limit; `at_least` says on which side of the limit it must be.

    `beside` is a comparison, such as the equivalent number of bare operations of the same run, because a limit that was
    measured on one machine says little about another.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False
    beside: str = ""

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the limit, or there is none."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def show(figure: Figure) -> None:
    """Print one figure."""
    side = ">=" if figure.at_least else "<="
    limit = f"{side} {figure.limit:g} {figure.unit}" if figure.limit is not None else "-"
    mark = "" if figure.holds else "   OVER ITS LIMIT"
    beside = f"   {figure.beside}" if figure.beside else ""
    print(f"{figure.name:<58} {figure.value:>10.2f} {figure.unit:<8} {limit:>18}{beside}{mark}", flush=True)
