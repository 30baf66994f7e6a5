"""`Store`: the data of the example agents, in SQLite, which needs no installation and no server.

Any database will do: sealbus only needs an agent to load a resource from its own data.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, LiteralString, Self, TypeVar

T = TypeVar("T")

DATABASE_VARIABLE: Final = "SEALBUS_EXAMPLES_DB"
"""The environment variable with the path of the file. Without it, data is in memory and ends with the agent."""

BUSY: Final = 5.0
"""Seconds that a statement waits while another process writes to the same file."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS items (
    item_id  TEXT PRIMARY KEY,
    owner    TEXT NOT NULL,
    customer TEXT NOT NULL,
    region   TEXT NOT NULL,
    quantity INTEGER NOT NULL CHECK (quantity >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS prices (item_id TEXT PRIMARY KEY, cents INTEGER NOT NULL CHECK (cents >= 0)) STRICT;
CREATE TABLE IF NOT EXISTS orders (item_id TEXT PRIMARY KEY, quantity INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS invoices (
    invoice_id TEXT PRIMARY KEY,
    owner      TEXT NOT NULL,
    customer   TEXT NOT NULL,
    total      INTEGER NOT NULL,
    paid       INTEGER NOT NULL DEFAULT 0 CHECK (paid >= 0)
) STRICT;
CREATE TABLE IF NOT EXISTS stocktakes (
    item_id  TEXT PRIMARY KEY,
    quantity INTEGER NOT NULL,
    cents    INTEGER NOT NULL
) STRICT;
"""

# The people, customers and regions are those of the starter policy: bob manages acme, the region `frozen` is never open.
_ITEMS: Final = (
    ("42", "alice", "acme", "always", 10),
    ("43", "alice", "acme", "frozen", 10),
    ("77", "carol", "globex", "always", 10),
)
_INVOICES: Final = (("2041", "alice", "acme", 500_000), ("2042", "carol", "globex", 80_000))
_PRICES: Final = (("42", 1_999), ("43", 250), ("77", 49_900))


class Store:
    """One connection to the shop's database, open inside `async with`.

    SQLite blocks, so the connection has its own thread, which runs one statement after the other. A statement that has begun
    is finished there even if its waiter is cancelled.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("the store is open already")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            await self._run(self._open)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def row(self, statement: LiteralString, *values: str | int) -> dict[str, Any] | None:
        """Return the first row, by column. Each value stands for a `?`, and never becomes part of the statement."""

        def run() -> dict[str, Any] | None:
            row = self._connected().execute(statement, values).fetchone()
            return dict(row) if row is not None else None

        return await self._run(run)

    async def change(self, statement: LiteralString, *values: str | int) -> int:
        """Run a statement that writes, in its own transaction; return the number of changed rows."""

        def run() -> int:
            with self._connected() as connection:
                return connection.execute(statement, values).rowcount

        return await self._run(run)

    def _open(self) -> None:
        path = self._path or os.environ.get(DATABASE_VARIABLE) or ":memory:"
        self._connection = connection = sqlite3.connect(path, timeout=BUSY)
        connection.row_factory = sqlite3.Row
        connection.executescript(_SCHEMA)
        with connection:
            # Existing rows stay: agents may share a file and start again.
            connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?, ?)", _ITEMS)
            connection.executemany("INSERT OR IGNORE INTO prices VALUES (?, ?)", _PRICES)
            connection.executemany(
                "INSERT OR IGNORE INTO invoices (invoice_id, owner, customer, total) VALUES (?, ?, ?, ?)", _INVOICES
            )

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the store is not open")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise RuntimeError("use the store inside `async with`")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _close(self) -> None:
        thread = self._thread
        if thread is None:
            return
        try:
            await self._run(self._disconnect)
        finally:
            self._thread = None
            thread.shutdown(wait=False)
