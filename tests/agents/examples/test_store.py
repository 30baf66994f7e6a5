"""The store alone: what it begins with, what it keeps, and that nothing of it outlives its block."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from pathlib import Path

import pytest

import sealbus.policies
from sealbus.agents.examples.store import DATABASE_VARIABLE, Store
from sealbus.agents.runtime.settings.source import environment_entries

REGISTRY = Path(sealbus.policies.__path__[0]) / "rego" / "sealbus" / "registry"

QUANTITY = "SELECT quantity FROM items WHERE item_id = ?"
SET = "UPDATE items SET quantity = ? WHERE item_id = ?"


def registry(document: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((REGISTRY / document / "data.json").read_text())
    return found


async def test_it_begins_with_people_and_regions_of_the_starter_policy() -> None:
    async with Store() as store:
        for item_id, region in (("42", "always"), ("43", "frozen"), ("77", "always")):
            row = await store.row("SELECT owner, region FROM items WHERE item_id = ?", item_id)
            assert row is not None
            assert row["owner"] in registry("users")
            assert row["region"] == region
            assert region in registry("regions")
            assert await store.row("SELECT cents FROM prices WHERE item_id = ?", item_id) is not None


async def test_a_row_is_there_or_none() -> None:
    async with Store() as store:
        assert await store.row(QUANTITY, "42") == {"quantity": 10}
        assert await store.row(QUANTITY, "nothing") is None


async def test_values_never_become_part_of_the_statement() -> None:
    async with Store() as store:
        assert await store.row(QUANTITY, "42' OR '1'='1") is None
        assert await store.change(SET, 1, "42'; DROP TABLE items; --") == 0
        assert await store.row(QUANTITY, "42") == {"quantity": 10}


async def test_a_change_that_fails_changes_nothing() -> None:
    async with Store() as store:
        assert await store.change(SET, 3, "42") == 1
        with pytest.raises(sqlite3.IntegrityError):
            await store.change(SET, -1, "42")
        assert await store.row(QUANTITY, "42") == {"quantity": 3}


async def test_in_memory_each_store_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    store = Store()
    async with store:
        await store.change(SET, 3, "42")
    async with store, Store() as other:
        assert await store.row(QUANTITY, "42") == {"quantity": 10}
        assert await other.change(SET, 4, "42") == 1
        assert await store.row(QUANTITY, "42") == {"quantity": 10}


async def test_a_file_is_kept_and_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, str(tmp_path / "shop.db"))
    async with Store() as store, Store() as other:
        await store.change(SET, 3, "42")
        assert await other.row(QUANTITY, "42") == {"quantity": 3}
    async with Store() as store:
        assert await store.row(QUANTITY, "42") == {"quantity": 3}


async def test_it_is_used_inside_async_with_and_opened_once() -> None:
    store = Store()
    with pytest.raises(RuntimeError, match="async with"):
        await store.row(QUANTITY, "42")
    async with store:
        with pytest.raises(RuntimeError, match="open already"):
            await store.__aenter__()
        assert await store.row(QUANTITY, "42") is not None
    with pytest.raises(RuntimeError, match="async with"):
        await store.row(QUANTITY, "42")


async def test_a_file_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "no" / "such" / "folder.db"))
    with pytest.raises(sqlite3.OperationalError):
        await store.__aenter__()
    with pytest.raises(RuntimeError, match="async with"):
        await store.row(QUANTITY, "42")
    for thread in threading.enumerate():
        if thread.name.startswith("store"):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()


def test_its_variable_is_not_taken_for_a_setting() -> None:
    assert environment_entries({DATABASE_VARIABLE: "/tmp/shop.db"}) == {}


async def test_a_statement_goes_on_though_its_waiter_is_cancelled() -> None:
    async with Store() as store:
        waiting = asyncio.ensure_future(store.change(SET, 3, "42"))
        await asyncio.sleep(0)  # lets it hand the statement to the thread
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await store.row(QUANTITY, "42")) in ({"quantity": 3}, {"quantity": 10})
        assert await store.change(SET, 5, "42") == 1
        assert await store.row(QUANTITY, "42") == {"quantity": 5}
