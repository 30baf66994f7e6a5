"""The book: SQLite on a disk that no fault touches, written by several processes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["POISON", "PUT_OFF", "Book", "cancel_after", "is_at_the_edge", "is_denied", "is_put_off"]

_TABLES = """
CREATE TABLE IF NOT EXISTS acknowledged (number INTEGER PRIMARY KEY, verb TEXT, handle TEXT, at REAL);
CREATE TABLE IF NOT EXISTS effects (number INTEGER, verb TEXT, message TEXT, former INTEGER, at REAL);
CREATE TABLE IF NOT EXISTS refused (number INTEGER, why TEXT);
CREATE TABLE IF NOT EXISTS cancels (number INTEGER PRIMARY KEY, asked REAL, confirmed REAL);
CREATE TABLE IF NOT EXISTS backups (at REAL);
CREATE INDEX IF NOT EXISTS effects_by_number ON effects (number);
CREATE INDEX IF NOT EXISTS effects_by_time ON effects (at);
"""

DENIED_EVERY = 10
"""Of so many tasks one is over the limit of the policy."""

POISON = "jam"
"""The verb whose handler ends its own process. Its tasks have negative numbers, which the load does not use."""

PUT_OFF = 8.0
"""Seconds until what is put off is due; longer than a process may take to hear of a cancel."""
_PAUSES = (0.0, 0.5, 1.0)
"""Seconds between a task's acknowledgement and its cancel: before, while and after it is handled, as it comes."""


def is_at_the_edge(number: int) -> bool:
    """Tell whether this task is submitted by HTTP, where there is an edge: as many as it lets one user submit."""
    return number % 10 == 3


def is_denied(number: int) -> bool:
    """Tell whether the policy has to deny this task."""
    return number > 0 and number % DENIED_EVERY == 0


def cancel_after(number: int) -> float | None:
    """Return how many seconds after its acknowledgement a task is canceled; `None` for nineteen of twenty, which are not.

    None is denied; some run under `once`, some without, and some came by HTTP.
    """
    return _PAUSES[number // 60 % len(_PAUSES)] if number > 0 and number % 60 in (7, 26, 43) else None


def is_put_off(number: int) -> bool:
    """Tell whether this task is due only `PUT_OFF` seconds after it is submitted, so that its cancel comes before."""
    return cancel_after(number) == _PAUSES[-1]


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

    def ask_cancel(self, number: int) -> None:
        """Write that the sender wants a task canceled; before it says so."""
        self._connection.execute("INSERT OR IGNORE INTO cancels VALUES (?, ?, NULL)", (number, time.time()))

    def confirm_cancel(self, number: int) -> None:
        """Write that the sender was told: canceled, as far as it was not done."""
        self._connection.execute("UPDATE cancels SET confirmed = ? WHERE number = ?", (time.time(), number))

    def effect(self, number: int, verb: str, message: str, *, former: bool = False) -> None:
        """Write that a handler does it, with `former` in a worker of the release before; what begins, begins now."""
        self._connection.execute(
            "INSERT INTO effects VALUES (?, ?, ?, ?, ?)", (number, verb, message, former, time.time())
        )

    def backup(self) -> None:
        """Write that a backup begins, from which all goes on."""
        self._connection.execute("INSERT INTO backups VALUES (?)", (time.time(),))

    def value(self, query: str, *values: object) -> float:
        """Return one number."""
        (found,) = self._connection.execute(query, values).fetchone()
        return float(found or 0)

    def rows(self, query: str, *values: object) -> Iterable[tuple[object, ...]]:
        """Return rows."""
        return self._connection.execute(query, values).fetchall()
