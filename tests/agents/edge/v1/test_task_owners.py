"""Whose task it is: found by who submitted it, by nobody else, and however the stored value was spoiled."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from support.engines import ScriptedEngine
from support.payments import Payments
from support.shop import Shop, Update

from sealbus.agents.edge.http.problem import EdgeError, too_often
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1 import task_owners as owners
from sealbus.agents.edge.v1.task_owners import TaskOwners
from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.stream_names import HELD
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import signed
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import SubjectType
from sealbus.testing import TestBus

ALICE = AccessToken(
    issuer="https://idp.example",
    subject="alice",
    name="alice",
    client="shop-web",
    session="session-1",
    scope=(),
    claims={},
    tenant=None,
    acr=None,
    amr=None,
    auth_time=None,
    issued=0,
    expires=time.time_ns(),
)


@dataclass(kw_only=True)
class Desk:
    """An edge's memory of one task of Alice's."""

    node: Node
    owners: TaskOwners
    handle: TaskHandle

    @property
    def task(self) -> str:
        return self.handle.message_id

    async def stored(self) -> tuple[int, dict[str, Any]]:
        found = await KeyValue(self.node.transport).get(self.subject)
        assert found is not None
        array = decode(found.payload, text_bytes=16_384, step=0)
        assert isinstance(array, list)
        assert isinstance(array[0], bytes)
        return found.sequence, json.loads(array[0])

    def written(self, value: dict[str, Any], sealer: Sealer | None = None) -> bytes:
        """Return what is stored of `value`, signed by the edge unless by another."""
        parts = signed(json.dumps(value).encode(), owners._TYPE, sealer or self.node.identity.sealer())
        return encode([*parts], text_bytes=16_384)

    async def replace(self, written: bytes) -> None:
        sequence, _ = await self.stored()
        assert await KeyValue(self.node.transport).replace(self.subject, written, last=sequence) is not None

    @property
    def subject(self) -> str:
        return f"state.{self.node.token}.request.{self.task}"

    async def last(self) -> int:
        found = await KeyValue(self.node.transport).get(self.subject)
        assert found is not None
        return found.sequence

    async def refuses(self, task: str | None = None, token: AccessToken = ALICE) -> bool:
        with pytest.raises(EdgeError) as raised:
            await self.owners.find_task(self.task if task is None else task, token)
        return (raised.value.status, raised.value.code) == (404, Code.NOT_FOUND)


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    async with TestBus(Shop().inventory, engine=ScriptedEngine()) as running:
        yield running


@pytest.fixture
async def thief(bus: TestBus) -> Sealer:
    return (await bus.client("thief")).node.identity.sealer()


@pytest.fixture
async def another(bus: TestBus) -> TaskHandle:
    return await (await bus.client("edge")).submit("inventory.update", Update(item_id="43"))


@pytest.fixture
async def desk(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(owners, "_PAUSE", 0.0)  # how long a replica may be behind is not what is looked at here
    client = await bus.client("edge")
    handle = await client.submit("inventory.update", Update(item_id="42"))
    made = Desk(node=client.node, owners=TaskOwners(client.node), handle=handle)
    await made.owners.keep(handle, ALICE)
    return made


async def test_who_submitted_it_finds_it_in_any_session_of_any_application(desk: Desk) -> None:
    for token in (ALICE, replace(ALICE, client="another", session="another", scope=("read",), expires=1)):
        found = await desk.owners.find_task(desk.task, token)
        assert found.text == desk.handle.text


async def test_another_process_of_the_edge_finds_it_too(desk: Desk) -> None:
    assert (await TaskOwners(desk.node).find_task(desk.task, ALICE)).text == desk.handle.text


async def test_nobody_else_does(desk: Desk) -> None:
    assert await desk.refuses(token=replace(ALICE, name="bob"))
    assert await desk.refuses(token=replace(ALICE, issuer="https://other.example"))
    assert await desk.refuses(token=replace(ALICE, issuer="https://idp.examplea", name="lice"))


@pytest.mark.parametrize("pseudonymous", [False, True], ids=["", "pseudonyms"])
async def test_a_client_is_not_the_user_whose_id_it_has(desk: Desk, pseudonymous: bool) -> None:
    owned = TaskOwners(desk.node, pseudonymous=pseudonymous)
    client = replace(ALICE, client="alice", type=SubjectType.CLIENT)
    for owner, other in ((ALICE, client), (client, ALICE)):
        handle: TaskHandle = await desk.node.sending.submit("inventory.update", Update(item_id="42"))
        await owned.keep(handle, owner)
        assert (await owned.find_task(handle.message_id, owner)).text == handle.text
        with pytest.raises(EdgeError):
            await owned.find_task(handle.message_id, other)


@pytest.mark.parametrize("task", ["", "0" * 31, "0" * 33, "g" * 32, "*", ">", "A" * 32, "0" * 32 + "\n", "0" * 32])
async def test_what_is_no_task_is_not_there(desk: Desk, task: str) -> None:
    assert await desk.refuses(task)


async def test_what_is_stored_does_not_name_the_user(desk: Desk) -> None:
    _, value = await desk.stored()
    assert value.keys() == {"v", "handle", "who", "at"}
    assert "alice" not in json.dumps(value)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": None},
        {"who": None},
        {"who": ""},
        {"who": "é"},
        {"handle": ""},
        {"handle": 7},
        {"handle": "1.AAAA"},
        {"at": 0},
        {"at": -1},
        {"at": None},
        {"at": 1e400},
    ],
)
async def test_a_value_that_is_not_ours_is_nobodys(desk: Desk, change: dict[str, object]) -> None:
    _, value = await desk.stored()
    await desk.replace(desk.written(value | change))
    assert await desk.refuses()


async def test_what_the_edge_did_not_write_is_nobodys(desk: Desk, thief: Sealer) -> None:
    """An agent that took part in a task can make up its handle, and have the broker store it with a user of its choice."""
    _, value = await desk.stored()
    await desk.replace(desk.written(value))
    assert (await desk.owners.find_task(desk.task, ALICE)).text == desk.handle.text
    plain = json.dumps(value).encode()
    for written in (plain, encode([plain], text_bytes=16_384), desk.written(value, thief)):
        await KeyValue(desk.node.transport).replace(desk.subject, written, last=await desk.last())
        assert await desk.refuses()


async def test_what_the_edge_wrote_of_another_task_is_not_this_ones(desk: Desk, another: TaskHandle) -> None:
    _, value = await desk.stored()
    await desk.replace(desk.written(value | {"handle": another.text}))
    assert await desk.refuses()


@pytest.mark.parametrize("written", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 50_000])
async def test_junk_is_nobodys(desk: Desk, written: bytes) -> None:
    sequence, _ = await desk.stored()
    assert await KeyValue(desk.node.transport).replace(desk.subject, written, last=sequence) is not None
    assert await desk.refuses()


async def test_with_pseudonyms_a_task_is_found_by_them_alone(desk: Desk) -> None:
    alice, other = replace(ALICE, name="pseudonym:5e"), replace(ALICE, name="pseudonym:5f")
    hidden = TaskOwners(desk.node, pseudonymous=True)
    with pytest.raises(EdgeError):
        await hidden.find_task(desk.task, alice)
    handle: TaskHandle = await desk.node.sending.submit("inventory.update", Update(item_id="42"))
    await hidden.keep(handle, alice)
    assert (await hidden.find_task(handle.message_id, alice)).text == handle.text
    for owned, token in ((hidden, other), (hidden, ALICE), (TaskOwners(desk.node), alice)):
        with pytest.raises(EdgeError):
            await owned.find_task(handle.message_id, token)


@dataclass(kw_only=True)
class Waits:
    """A task of Alice's that waits for an approval, of which nothing is kept any more but that."""

    bus: TestBus
    owners: TaskOwners
    task: str
    charged: list[float] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)

    async def refuses(self, task: str, token: AccessToken) -> None:
        with pytest.raises(EdgeError) as raised:
            await self.owners.find_task(task, token)
        assert (raised.value.status, raised.value.code) == (404, Code.NOT_FOUND)


@pytest.fixture
async def waits(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Waits]:
    monkeypatch.setattr(owners, "_PAUSE", 0.0)
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus, client="edge")
        charged: list[float] = []
        reads: list[str] = []
        node = (await bus.client("edge")).node
        true = node.transport.read

        def read(stream: str, subjects: Sequence[str], **named: Any) -> Any:
            reads.extend(subjects)
            return true(stream, subjects, **named)

        monkeypatch.setattr(node.transport, "read", read)
        owned = TaskOwners(node, charge=lambda _, cost: charged.append(cost))
        yield Waits(bus=bus, owners=owned, task=handle.message_id, charged=charged, reads=reads)


async def test_a_task_that_waits_is_found_when_its_owner_is_kept_no_more(waits: Waits) -> None:
    alice = replace(ALICE, issuer="https://idp.sealbus.invalid")
    found = await waits.owners.find_task(waits.task, alice)
    assert (found.message_id, found.action) == (waits.task, "payments.pay")
    assert waits.charged == [1.0]
    for other in (
        replace(alice, name="bob"),
        replace(alice, issuer="https://other.example"),
        replace(alice, type=SubjectType.CLIENT),
    ):
        await waits.refuses(waits.task, other)


def made(at: int, *, version: str = "7") -> str:
    """Return an id of a task that there is not, made `at` (microseconds)."""
    return f"{at // 1_000:012x}{version}123" + "8" + "4" * 15


async def test_an_id_that_nothing_has_is_looked_for_once_and_counts_as_one_more_request(waits: Waits) -> None:
    await waits.refuses(made(time.time_ns() // 1_000 - 86_400 * SECOND), ALICE)
    assert (waits.charged, len(waits.reads)) == ([1.0], 1)


@pytest.mark.parametrize(
    ("ago", "version"), [(33 * 86_400, "7"), (-60, "7"), (-(10**7), "7"), (86_400, "4"), (86_400, "0")]
)
async def test_an_id_that_no_held_task_can_have_is_not_looked_for(waits: Waits, ago: int, version: str) -> None:
    await waits.refuses(made(time.time_ns() // 1_000 - ago * SECOND, version=version), ALICE)
    assert (waits.charged, waits.reads) == ([], [])


async def test_who_asks_too_often_is_told_before_anything_is_read(waits: Waits) -> None:
    def charge(token: AccessToken, cost: float) -> None:
        raise too_often(cost)

    limited = TaskOwners(waits.owners._node, charge=charge)
    with pytest.raises(EdgeError) as raised:
        await limited.find_task(waits.task, ALICE)
    assert (raised.value.status, waits.reads) == (429, [])


async def test_where_nothing_is_held_there_is_no_such_task(waits: Waits, caplog: pytest.LogCaptureFixture) -> None:
    del waits.bus.broker.streams[HELD]
    with caplog.at_level(logging.WARNING, logger="sealbus"):
        await waits.refuses(waits.task, ALICE)
    assert "the tasks that wait cannot be read: stream HELD does not exist" in caplog.text
