"""nats-server killed under a notary, streams deleted, messages deleted: it goes on, or it ends and says why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.notary import NAMES, NOTARY, ORIGIN, SIGNER, last_place, read_log
from support.real_bus import RealBus, real_bus

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.runtime.node import Node
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import Outgoing
from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.records.work import OutcomeRecord

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path / "bus", "notary", "shop") as running:
        yield running


def notary_on(node: Node, folder: Path, origin: str = ORIGIN) -> Notary:
    return Notary(
        NotaryOptions(plan=LogPlan(origin=origin, verifiers=(SIGNER.verifier,)), signers=(SIGNER,), lease=1.0),
        NotarySite(identity=node.identity, transport=node.transport, outbox=node.outbox, names=NAMES),
        store=FolderStore(folder),
    )


@asynccontextmanager
async def running(notary: Notary) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(notary.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def sealed(folder: Path, sequence: int, origin: str = ORIGIN) -> None:
    store = FolderStore(folder)
    async with asyncio.timeout(60):
        while True:
            note = store.get(CHECKPOINT)
            if note is not None:
                size = open_checkpoint(note, origin=origin, verifiers=[SIGNER.verifier]).checkpoint.size
                if last_place(store, size).sequence >= sequence:
                    return
            await asyncio.sleep(0.02)


async def record(node: Node, number: int) -> int:
    """Store a record and garbage; return the sequence of the latter."""
    done = asyncio.Event()
    outcome = OutcomeRecord.of(decision=number.to_bytes(32, "big"), code=None, micros=1, delivery=1, sent=())
    await node.audit.note(outcome, done.set)
    async with asyncio.timeout(60):
        await done.wait()
        while True:
            [answer] = await node.transport.publish([Outgoing(subject="audit.shop", payload=b"garbage")], deadline=60.0)
            if not isinstance(answer, Exception):
                return answer.sequence
            await asyncio.sleep(0.1)


async def test_it_goes_on_when_the_server_is_back(bus: RealBus, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    own, shop = await bus.node("notary", ScriptedEngine()), await bus.node("shop", ScriptedEngine())
    async with running(notary_on(own, folder)) as task:
        for number in range(3):
            await sealed(folder, await record(shop, number))
            await bus.server.kill9()
            await bus.server.restart()
        await sealed(folder, await record(shop, 9))
        assert not task.done()
    found = await read_log(own.transport, folder, NOTARY)
    assert len(found.kinds(EntryKind.UNVERIFIED)) == 4


async def ask(connection: Connection, subject: str, content: dict[str, object]) -> None:
    answer = json.loads(await connection.jetstream(subject, json.dumps(content).encode()))
    assert "error" not in answer, answer


async def test_a_message_that_is_gone_is_a_gap_and_one_that_was_there_ends_it(bus: RealBus, tmp_path: Path) -> None:
    """What an operator can do who first takes the protection away."""
    folder = tmp_path / "log"
    own, shop = await bus.node("notary", ScriptedEngine()), await bus.node("shop", ScriptedEngine())
    connection = bus.operator
    async with running(notary_on(own, folder)):
        await sealed(folder, await record(shop, 1))
    # As it is declared nothing can be deleted; an operator can make it anew without that.
    info = json.loads(await connection.jetstream("$JS.API.STREAM.INFO.AUDIT", b""))
    assert info["config"]["deny_delete"] is True
    answer = json.loads(await connection.jetstream("$JS.API.STREAM.MSG.DELETE.AUDIT", b'{"seq": 2}'))
    assert "error" in answer
    await ask(connection, "$JS.API.STREAM.DELETE.AUDIT", {})
    config = {key: value for key, value in info["config"].items() if key not in {"deny_delete", "deny_purge"}}
    await ask(connection, "$JS.API.STREAM.CREATE.AUDIT", config)
    with pytest.raises(LogError) as caught:
        await notary_on(own, folder).run()
    assert caught.value.code is Code.LOG_MISMATCH
    # Nor is a log of the new stream made under the old one's name, in whatever folder; it has one of its own.
    other, again = tmp_path / "other", f"{ORIGIN}/again"
    first = [await record(shop, number) for number in range(3)]
    with pytest.raises(LogError, match="another history"):
        await notary_on(own, tmp_path / "third").run()
    await ask(connection, "$JS.API.STREAM.MSG.DELETE.AUDIT", {"seq": first[0]})
    async with running(notary_on(own, other, again)):
        await sealed(other, first[-1], again)
    found = await read_log(own.transport, other, NOTARY, origin=again)
    assert found.kinds(EntryKind.GAP) == [first[0]]
    await ask(connection, "$JS.API.STREAM.MSG.DELETE.AUDIT", {"seq": first[1]})
    with pytest.raises(LogError) as caught:
        await notary_on(own, other, again).run()
    assert caught.value.code is Code.LOG_MISMATCH


async def test_a_stream_that_is_made_anew_under_it_ends_it(bus: RealBus, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    own, shop = await bus.node("notary", ScriptedEngine()), await bus.node("shop", ScriptedEngine())
    connection = bus.operator
    notary = notary_on(own, folder)
    async with running(notary) as task:
        await sealed(folder, await record(shop, 1))
        info = json.loads(await connection.jetstream("$JS.API.STREAM.INFO.AUDIT", b""))
        await ask(connection, "$JS.API.STREAM.DELETE.AUDIT", {})
        await ask(connection, "$JS.API.STREAM.CREATE.AUDIT", info["config"])
        await asyncio.wait({task}, timeout=60)
        with pytest.raises((ConfigurationError, LogError)):
            task.result()
        assert notary.problem
