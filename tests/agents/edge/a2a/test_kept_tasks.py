from __future__ import annotations

from pathlib import Path

from a2a.types import GetTaskRequest, ListTasksRequest
from support.a2a import Lines, asking, site, submitted, token_of

from sealbus.agents.edge.a2a.kept_tasks import KeptTasks
from sealbus.agents.edge.v1.task_owners import TaskOwners
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import signed
from sealbus.envelopes.encoding.codec import encode


async def test_what_somebody_else_stored_is_not_listed_and_says_nothing(tmp_path: Path) -> None:
    lines = Lines()
    lines.go_on.set()
    async with site(tmp_path, lines.agent) as running, running.client("writer") as client:
        first = await submitted(client, "writer.write", {"value": 0}, context_id="c-1")
        second = await submitted(client, "writer.write", {"value": 0}, context_id="c-2")
        node = running.door.edge.node
        kept = KeptTasks(node, TaskOwners(node))
        alice = token_of(running.door.issuer.issuer, "alice")
        newest = await kept.newest(agent="writer", token=alice)
        assert newest == {second.id: "c-2", first.id: "c-1"}
        assert list(newest) == sorted(newest, reverse=True)
        assert await kept.newest(agent="other", token=alice) == {}
        assert await kept.context_id(first.id, agent="writer", token=alice) == "c-1"
        assert await kept.context_id(first.id, agent="other", token=alice) == first.id
        assert await kept.newest(agent="writer", token=token_of(running.door.issuer.issuer, "bob")) == {}

        # The broker holds our own signed value under another task's name, and bytes of a stranger's.
        values = {one.subject: one.payload for one in running.door.bus.stored("STATE") if ".a2a.task." in one.subject}
        place = next(iter(values)).rpartition(".")[0]
        keyed = KeyValue(node.transport)
        await keyed.create(f"{place}.{'0' * 32}", values[f"{place}.{first.id}"])
        await keyed.create(f"{place}.{'f' * 32}", b"\x91\x01")
        other = (await running.door.bus.client("other")).node.identity.sealer()
        value = encode([1, "c-9", "e" * 32, node.clock()], text_bytes=4_096)
        forged = signed(value, "application/vnd.sealbus.a2a-task.v1", other)
        await keyed.create(f"{place}.{'e' * 32}", encode([*forged], text_bytes=4_096))
        assert await kept.newest(agent="writer", token=alice) == newest
        assert await kept.context_id("f" * 32, agent="writer", token=alice) == "f" * 32
        assert (await client.list_tasks(ListTasksRequest())).total_size == 2


async def test_a_task_of_another_door_is_its_own_context(tmp_path: Path) -> None:
    lines = Lines()
    lines.go_on.set()
    async with site(tmp_path, lines.agent) as running, running.client("writer") as client:
        answer = await running.door.post("/v1/tasks/writer/write", 0)
        found = await client.get_task(GetTaskRequest(id=answer.json()["id"]))
        assert found.context_id == found.id
        assert (await client.list_tasks(ListTasksRequest())).total_size == 0


async def test_no_subject_says_who_a_user_is(tmp_path: Path) -> None:
    lines = Lines()
    lines.go_on.set()
    async with site(tmp_path, lines.agent) as running, running.client("writer") as client:
        request = asking("writer.write", {"value": 0}, context_id="c-1")
        async for _ in client.send_message(request):
            pass
        stored = running.door.bus.stored("STATE")
        assert [one for one in stored if ".a2a.task." in one.subject]
        assert not [one for one in stored if "alice" in one.subject or b"alice" in one.payload]
