"""The book: SQLite on a disk that no fault touches, written by several processes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Book", "is_at_the_edge", "is_denied"]

_TABLES = """
CREATE TABLE IF NOT EXISTS acknowledged (number INTEGER PRIMARY KEY, verb TEXT, handle TEXT, at REAL);
CREATE TABLE IF NOT EXISTS effects (number INTEGER, verb TEXT, message TEXT, at REAL);
CREATE TABLE IF NOT EXISTS refused (number INTEGER, why TEXT);
CREATE INDEX IF NOT EXISTS effects_by_number ON effects (number);
"""

DENIED_EVERY = 10
"""Of so many tasks one is over the limit of the policy."""


def is_at_the_edge(number: int) -> bool:
    """Tell whether this task is submitted by HTTP, where there is an edge: as many as it lets one user submit."""
    return number % 10 == 3


def is_denied(number: int) -> bool:
    """Tell whether the policy has to deny this task."""
    return number % DENIED_EVERY == 0


class Book:
    """One process' connection to the book in `path`; every line is committed by itself."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # Processes die here, the machine does not.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_TABLES)

    def close(self) -> None:
        self._connection.close()

    def acknowledge(self, number: int, verb: str, handle: str) -> None:
        """Write that the sender was told: stored."""
        self._connection.execute("INSERT INTO acknowledged VALUES (?, ?, ?, ?)", (number, verb, handle, time.time()))

    def refuse(self, number: int, why: str) -> None:
        """Write that the sender was told: not stored; it will try again."""
        self._connection.execute("INSERT INTO refused VALUES (?, ?)", (number, why))

    def effect(self, number: int, verb: str, message: str) -> None:
        """Write that a handler did it."""
        self._connection.execute("INSERT INTO effects VALUES (?, ?, ?, ?)", (number, verb, message, time.time()))

    def value(self, query: str, *values: object) -> float:
        """Return one number."""
        (found,) = self._connection.execute(query, values).fetchone()
        return float(found or 0)

    def rows(self, query: str, *values: object) -> Iterable[tuple[object, ...]]:
        """Return rows."""
        return self._connection.execute(query, values).fetchall()
