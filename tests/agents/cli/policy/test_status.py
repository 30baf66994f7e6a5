"""`sealbus policy status` of a store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.policy_desk import Desk

from sealbus.agents.cli.policy.push import push
from sealbus.agents.cli.policy.status import status

pytestmark = pytest.mark.nats


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_parts_with_serial_key_and_what_is_kept(desk: Desk) -> None:
    desk.push_both()
    desk.json(push, desk.team, "--name", "stock", "--key", desk.stock)
    platform, stock = desk.json(status)
    assert (platform["part"], platform["serial"], platform["kept"]) == ("platform", 1, [1])
    assert (stock["part"], stock["serial"], stock["kept"], stock["problem"]) == ("stock", 2, [1, 2], "")
    assert platform["key"] in desk.anchors
    result = desk.run(status)
    assert result.exit_code == 0
    assert "platform-1.stock-2" in result.stderr


def test_what_is_refused_is_told_and_exits_with_1(desk: Desk) -> None:
    desk.push_both()

    async def forge() -> None:
        async with desk.open_store() as (store, _):
            found = await store.read("stock")
            assert found is not None
            await store.push("stock", b"junk", 2, last=found.last)

    asyncio.run(forge())
    result = desk.run(status, "--json")
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["part"], row["serial"]) for row in rows] == [("platform", 1), ("stock", None)]
    assert "not a gzipped tar" in rows[1]["problem"]


def test_a_store_without_a_policy(desk: Desk) -> None:
    async def create() -> None:
        async with desk.open_store() as (store, _):
            await store.create()

    asyncio.run(create())
    result = desk.run(status)
    assert result.exit_code == 1
    assert "no policy is in force" in result.stderr
