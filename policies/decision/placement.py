"""Where a workload is among the cells of a deployment (docs/cells.md), as the registry of a policy says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_IDENTIFIER: Final = re.compile("[0-9a-f]{32}")
_TIME_DIGITS: Final = 12
"""Digits at the beginning of an identifier that are its time in milliseconds (RFC 9562 section 5.7)."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one token is: its `cell` and, if it was moved, the cell `before` and `since` when (microseconds) it is there."""

    cell: str
    before: str = ""
    since: int = 0

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells that may have something of the token, the present one first."""
        return (self.cell, self.before) if self.before else (self.cell,)

    def cell_at(self, identifier: str) -> str:
        """Return the cell of a message by its id (32 hex digits), which begins with its time; else the present one.

        Who made the id may have chosen another time. All who look at it find the same cell nevertheless.
        """
        if (
            self.before
            and _IDENTIFIER.fullmatch(identifier)
            and int(identifier[:_TIME_DIGITS], 16) * 1_000 < self.since
        ):
            return self.before
        return self.cell
