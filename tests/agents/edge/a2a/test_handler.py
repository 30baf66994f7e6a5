from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from a2a.client import A2AClientError, Client
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    Part,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict
from support.a2a import BINDINGS, Lines, Site, asking, left, site, submitted, told
from support.engines import ScriptedEngine, Verdict, allow, deny
from support.payments import Payments
from support.shop import Shop

from sealbus.agents.edge.a2a.task_states import PROBLEM
from sealbus.agents.edge.v1.approval_routes import APPROVALS_PATH, SCOPE

LOGIN: dict[str, object] = {"type": "remedy", "kind": "login", "acr": "urn:x:2", "max_age": 300}
SHOWN: dict[str, object] = {"type": "show_reasons"}
ITEM = {"item_id": "42", "quantity": 3}
VERSION = {"A2A-Version": "1.0"}


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def running(tmp_path: Path, shop: Shop, lines: Lines, engine: ScriptedEngine) -> AsyncIterator[Site]:
    async with site(tmp_path, shop.inventory, shop.pricing, lines.agent, engine=engine) as found:
        yield found
        lines.go_on.set()


def of_calls(verdict: Verdict) -> Any:
    """Return a policy that says this of everything but answers."""
    return lambda one: allow() if one["action"]["name"].endswith(".reply") else verdict


def data(part: Part) -> object:
    return MessageToDict(part.data)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_call_is_answered_by_a_message(running: Site, shop: Shop, binding: str) -> None:
    async with running.client("pricing", binding, scope="read write") as client:
        [found] = await told(client.send_message(asking("pricing.quote", ITEM, context_id="c-1")))
    [part] = found.message.parts
    assert (data(part), found.message.context_id) == ({"item_id": "42", "price": 21}, "c-1")
    async with running.client("pricing", binding) as client:
        [found] = await told(client.send_message(asking("pricing.quote", ITEM)))
    assert found.message.context_id == found.message.message_id != ""
    user = shop.contexts[0].user
    assert user is not None
    assert (user.sub, user.scp, user.clm["door"]) == ("alice", ("read", "write"), "a2a")


async def test_texts_chunks_and_numbers_beyond_json_come_as_they_are(running: Site) -> None:
    async with running.client("writer") as client:
        [shouted] = await told(client.send_message(asking("writer.shout", "hey")))
        [counted] = await told(client.send_message(asking("writer.count", '{"value": 3}')))
        [big] = await told(client.send_message(asking("writer.big", {"value": ""})))
    assert [data(part) for part in shouted.message.parts] == ["HEY"]
    assert [data(part) for part in counted.message.parts] == [0, 1, 2]
    assert big.message.parts[0].text == str(2**60)


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_task_is_streamed_to_its_end_and_found_again(running: Site, shop: Shop, binding: str) -> None:
    async with running.client("inventory", binding) as client:
        first, *rest = await told(client.send_message(asking("inventory.update", ITEM, context_id="c-1")))
        assert first.task.status.state == TaskState.TASK_STATE_SUBMITTED
        assert rest[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
        assert {one.status_update.task_id for one in rest if one.HasField("status_update")} == {first.task.id}
        found = await client.get_task(GetTaskRequest(id=first.task.id))
        assert (found.status.state, found.context_id) == (TaskState.TASK_STATE_COMPLETED, "c-1")
        assert [data(part) for part in found.artifacts[0].parts] == [None]
    assert shop.handled == [("42", 3)]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_parts_are_one_artifact_that_grows_and_a_lost_stream_is_taken_up_again(
    running: Site, lines: Lines, binding: str
) -> None:
    async with running.client("writer", binding) as client:
        async with left(client.send_message(asking("writer.write", {"value": 3}))) as responses:
            task = (await anext(responses)).task
            async for one in responses:
                if one.HasField("artifact_update"):
                    update = one.artifact_update
                    assert (data(update.artifact.parts[0]), update.append) == ("line 0", False)
                    break
        again = client.subscribe(SubscribeToTaskRequest(id=task.id))
        whole = (await anext(again)).task
        assert [data(part) for part in whole.artifacts[0].parts] == ["line 0"]
        lines.go_on.set()
        rest = await told(again)
        grown = [one.artifact_update for one in rest if one.HasField("artifact_update")]
        assert [(data(one.artifact.parts[0]), one.append) for one in grown] == [("line 1", True), ("line 2", True)]
        assert rest[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
        found = await client.get_task(GetTaskRequest(id=task.id))
        assert [data(part) for part in found.artifacts[0].parts] == ["line 0", "line 1", "line 2"]
        with pytest.raises(UnsupportedOperationError):
            await told(client.subscribe(SubscribeToTaskRequest(id=task.id)))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_task_is_canceled_once(running: Site, binding: str) -> None:
    async with running.client("writer", binding) as client:
        task = await submitted(client, "writer.write", {"value": 3})
        await client.cancel_task(CancelTaskRequest(id=task.id))
        await running.door.bus.idle()
        found = await client.get_task(GetTaskRequest(id=task.id))
        assert found.status.state == TaskState.TASK_STATE_CANCELED
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_tasks_are_listed_in_pages_by_context_and_state(running: Site, lines: Lines, binding: str) -> None:
    lines.go_on.set()
    async with running.client("writer", binding) as client:
        made = [(await submitted(client, "writer.write", {"value": 1}, context_id=f"c-{n % 2}")).id for n in range(5)]
        await running.door.bus.idle()
        whole = await client.list_tasks(ListTasksRequest())
        assert {one.id: one.context_id for one in whole.tasks} == {one: f"c-{n % 2}" for n, one in enumerate(made)}
        assert (whole.total_size, whole.next_page_token) == (5, "")
        assert not any(one.artifacts for one in whole.tasks)
        seen: list[str] = []
        page, token = 0, ""
        while page == 0 or token:
            found = await client.list_tasks(
                ListTasksRequest(context_id="c-0", page_size=2, page_token=token, include_artifacts=True)
            )
            seen += [one.id for one in found.tasks if one.artifacts]
            page, token = page + 1, found.next_page_token
        assert (page, sorted(seen)) == (2, sorted(made[::2]))
        done = await client.list_tasks(ListTasksRequest(status=TaskState.TASK_STATE_COMPLETED, page_size=2))
        assert len(done.tasks) == 2
        none = await client.list_tasks(ListTasksRequest(status=TaskState.TASK_STATE_WORKING))
        assert (len(none.tasks), none.next_page_token) == (0, "")
        first = await client.list_tasks(ListTasksRequest(page_size=1))
        assert (len(first.tasks), first.next_page_token) == (1, first.tasks[0].id)
        assert len((await client.list_tasks(ListTasksRequest(page_size=100))).tasks) == 5
        for size in (-1, 101):
            with pytest.raises(InvalidParamsError):
                await client.list_tasks(ListTasksRequest(page_size=size))
        for near in ("c-", "c-00", "C-0"):
            assert (await client.list_tasks(ListTasksRequest(context_id=near))).total_size == 0
    async with running.client("writer", binding, sub="bob") as client:
        assert (await client.list_tasks(ListTasksRequest())).total_size == 0


@pytest.mark.parametrize("rate", ["affords", "affords_read"])
async def test_a_page_ends_where_its_user_has_looked_often_enough(
    running: Site, lines: Lines, rate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines.go_on.set()
    async with running.client("writer") as client:
        made = [(await submitted(client, "writer.write", {"value": 1})).id for _ in range(3)]
        with monkeypatch.context() as over:
            over.setattr(type(running.door.edge.front), rate, lambda *_: False)
            found = await client.list_tasks(ListTasksRequest())
        assert ([one.id for one in found.tasks], found.next_page_token) == ([max(made)], max(made))
        rest = await client.list_tasks(ListTasksRequest(page_token=found.next_page_token))
        assert [one.id for one in rest.tasks] == sorted(made, reverse=True)[1:]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_tasks_of_others_and_of_other_agents_are_not_there(running: Site, shop: Shop, binding: str) -> None:
    async with running.client("inventory", binding) as client:
        task = await submitted(client, "inventory.update", ITEM)

    async def refused(client: Client) -> None:
        with pytest.raises(TaskNotFoundError):
            await client.get_task(GetTaskRequest(id=task.id))
        with pytest.raises(TaskNotFoundError):
            await client.cancel_task(CancelTaskRequest(id=task.id))
        with pytest.raises(TaskNotFoundError):
            await told(client.subscribe(SubscribeToTaskRequest(id=task.id)))
        with pytest.raises(TaskNotFoundError):
            await told(client.send_message(asking("inventory.update", ITEM, task_id=task.id)))

    for agent, user in (("inventory", "bob"), ("writer", "alice")):
        async with running.client(agent, binding, sub=user) as client:
            await refused(client)
    async with running.client("inventory", binding) as client:
        for unknown in ("0" * 32, "<script>", task.id.upper()):
            with pytest.raises((TaskNotFoundError, A2AClientError)):
                await client.get_task(GetTaskRequest(id=unknown))
    await running.door.bus.idle()
    assert shop.handled == [("42", 3)]


async def test_a_denied_task_is_rejected_and_one_that_needs_a_login_asks_for_it(
    running: Site, shop: Shop, engine: ScriptedEngine
) -> None:
    def verdict(asked: dict[str, Any]) -> Any:
        user = asked["context"]["user"]
        if user["id"] == "bob":
            return deny("not_owner", obligations=(SHOWN,))
        return allow() if user.get("acr") == "urn:x:2" else deny("late", obligations=(SHOWN, LOGIN))

    engine.verdict = verdict
    async with running.client("inventory", sub="bob") as client:
        *_, last = await told(client.send_message(asking("inventory.update", ITEM)))
        assert last.status_update.status.state == TaskState.TASK_STATE_REJECTED
        assert MessageToDict(last.status_update.status.message.metadata)[PROBLEM]["reasons"] == ["not_owner"]
        with pytest.raises(UnsupportedOperationError):
            await told(client.send_message(asking("inventory.update", ITEM, task_id=last.status_update.task_id)))
    async with running.client("inventory") as client:
        *_, last = await told(client.send_message(asking("inventory.update", ITEM)))
        update = last.status_update
        assert update.status.state == TaskState.TASK_STATE_AUTH_REQUIRED
        remedy = MessageToDict(update.status.message.metadata)[PROBLEM]["remedy"]
        assert remedy == [{"kind": "login", "acr": "urn:x:2", "max_age": 300}]
    async with running.client("inventory", acr="urn:x:2") as client:
        for near in (update.context_id[:-1], f"{update.context_id}0", update.context_id.upper()):
            with pytest.raises(InvalidParamsError, match="contextId"):
                await told(
                    client.send_message(asking("inventory.update", ITEM, task_id=update.task_id, context_id=near))
                )
        first, *_, last = await told(client.send_message(asking("inventory.update", ITEM, task_id=update.task_id)))
        assert first.task.id != update.task_id
        assert (first.task.context_id, last.status_update.context_id) == (update.context_id, update.context_id)
        assert last.status_update.status.state == TaskState.TASK_STATE_COMPLETED
    assert shop.handled == [("42", 3)]


async def test_a_denied_call_is_answered_as_http_says_it(running: Site, engine: ScriptedEngine) -> None:
    engine.verdict = of_calls(deny("not_owner", obligations=(SHOWN,)))
    params = MessageToDict(asking("pricing.quote", ITEM))
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    answer = await running.door.post("/a2a/pricing/rpc", rpc, headers=VERSION)
    assert (answer.status_code, answer.json()["reasons"]) == (403, ["not_owner"])
    engine.verdict = of_calls(deny("late", obligations=(SHOWN, LOGIN)))
    answer = await running.door.post("/a2a/pricing/v1/message:send", params, headers=VERSION)
    assert answer.status_code == 401
    assert 'acr_values="urn:x:2"' in answer.headers["www-authenticate"]


async def test_what_fails_at_the_agent_is_an_error_of_a2a_without_its_words(running: Site) -> None:
    async with running.client("writer") as client:
        with pytest.raises(A2AError) as failed:
            await told(client.send_message(asking("writer.broken", {"value": 1})))
        assert "handler_failed" in str(failed.value)
        assert "secret" not in repr(failed.value)
        with pytest.raises(InvalidParamsError, match="bad_body"):
            await told(client.send_message(asking("writer.count", {"value": "x"})))


BAD: dict[str, tuple[Any, type[A2AError]]] = {
    "no skill": (asking("", ITEM), InvalidParamsError),
    "an unknown skill": (asking("writer.absent", ITEM), InvalidParamsError),
    "another agent's skill": (asking("inventory.update", ITEM), InvalidParamsError),
    "no value": (asking("writer.count", {"other": 1}), InvalidParamsError),
    "no object": (asking("writer.count", [1]), InvalidParamsError),
    "no JSON": (asking("writer.count", "no JSON"), InvalidParamsError),
    "deep": (asking("writer.count", "[" * 100 + "]" * 100), InvalidParamsError),
    "no number": (asking("writer.count", '{"value": NaN}'), InvalidParamsError),
    "no part": (asking("writer.count", {}, parts=[]), InvalidParamsError),
    "two parts": (asking("writer.count", {}, parts=[Part(text="1"), Part(text="2")]), InvalidParamsError),
    "a URL": (asking("writer.count", {}, parts=[Part(url="http://127.0.0.1/")]), ContentTypeNotSupportedError),
    "bytes": (asking("writer.count", {}, parts=[Part(raw=b"x")]), ContentTypeNotSupportedError),
    "a context with a space": (asking("writer.count", {"value": 1}, context_id="a b"), InvalidParamsError),
    "a long context": (asking("writer.count", {"value": 1}, context_id="x" * 129), InvalidParamsError),
    "no id": (asking("writer.count", {"value": 1}, message_id=""), InvalidParamsError),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_message_that_is_not_for_a_skill_is_refused_before_the_bus(running: Site, name: str) -> None:
    request, error = BAD[name]
    before = running.door.published()
    async with running.client("writer") as client:
        with pytest.raises(error):
            await told(client.send_message(request))
    assert running.door.published() == before


async def test_skills_without_their_scope_are_not_on_the_extended_card_and_are_refused(
    tmp_path: Path, shop: Shop
) -> None:
    async with site(tmp_path, shop.inventory, settings={"scopes": {"inventory.update": "stock:write"}}) as found:
        params = MessageToDict(asking("inventory.update", ITEM))
        answer = await found.door.post("/a2a/inventory/v1/message:send", params, headers=VERSION)
        assert answer.status_code == 403
        assert 'error="insufficient_scope", scope="stock:write"' in answer.headers["www-authenticate"]
        async with found.client("inventory") as client:
            card = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
            assert [one.id for one in card.skills] == ["inventory.order", "inventory.hang"]
        async with found.client("inventory", scope="stock:write") as client:
            card = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
            assert "inventory.update" in [one.id for one in card.skills]
            *_, last = await told(client.send_message(asking("inventory.update", ITEM)))
            assert last.status_update.status.state == TaskState.TASK_STATE_COMPLETED


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_task_waits_for_an_approval_that_no_message_gives(tmp_path: Path, binding: str) -> None:
    payments = Payments()
    async with site(tmp_path, payments.agent, engine=payments.engine) as found:
        door = found.door
        async with found.client("payments", binding) as client:
            responses = client.send_message(asking("payments.pay", {"invoice": "42"}))
            task = (await anext(responses)).task
            waiting = (await anext(responses)).status_update.status
            assert waiting.state == TaskState.TASK_STATE_INPUT_REQUIRED
            assert "somebody who may" in waiting.message.parts[0].text
            with pytest.raises(UnsupportedOperationError):
                await told(client.send_message(asking("payments.pay", "approve", task_id=task.id)))
            await door.bus.idle()
            assert payments.paid == []
            [parked] = await door.bus.waiting()
            url = f"{APPROVALS_PATH}/{parked.digest.hex()}"
            shown = (await door.get(url, sub="boss")).json()
            verdict = {"decision": shown["decision"], "verdict": "approve"}
            assert (await door.post(url, verdict, sub="boss", scope=SCOPE)).status_code == 200
            *_, last = await told(responses)
            assert last.status_update.status.state == TaskState.TASK_STATE_COMPLETED
            [result] = (await client.get_task(GetTaskRequest(id=task.id))).artifacts
            assert [data(part) for part in result.parts] == ["paid"]
    assert payments.paid == [("42", ("boss",))]


async def test_a_client_that_waits_gets_its_task_back_once_somebody_is_needed(tmp_path: Path) -> None:
    payments = Payments()
    async with site(tmp_path, payments.agent, engine=payments.engine) as found:
        params = MessageToDict(asking("payments.pay", {"invoice": "42"}))
        answer = await found.door.post("/a2a/payments/v1/message:send", params, headers=VERSION)
        status = answer.json()["task"]["status"]
        assert status["state"] == "TASK_STATE_INPUT_REQUIRED"
        assert status["message"]["metadata"][PROBLEM]["code"] == "approval_required"


async def test_copies_of_a_message_are_one_effect_where_the_agent_says_so(tmp_path: Path) -> None:
    payments = Payments(once=True, decide=lambda _: allow())
    async with site(tmp_path, payments.agent, engine=payments.engine) as found, found.client("payments") as client:
        for _ in range(2):
            *_, last = await told(client.send_message(asking("payments.pay", {"invoice": "42"}, message_id="m-7")))
            assert last.status_update.status.state == TaskState.TASK_STATE_COMPLETED
    assert len(payments.paid) == 1


async def test_a_task_goes_on_without_its_client(running: Site, shop: Shop) -> None:
    async with running.client("inventory") as client:
        await submitted(client, "inventory.update", ITEM)
    await running.door.bus.idle()
    assert shop.handled == [("42", 3)]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_call_ends_with_its_client(running: Site, lines: Lines, binding: str) -> None:
    async with running.client("writer", binding) as client, asyncio.timeout(60):
        calling = asyncio.ensure_future(told(client.send_message(asking("writer.hang", {"value": 1}))))
        await lines.begun.wait()
        calling.cancel()
        await asyncio.wait([calling])
        await lines.canceled.wait()


async def test_a_tenant_decides_nothing(running: Site) -> None:
    params = MessageToDict(asking("writer.shout", "hey"))
    for tenant in ("inventory", "write", "writers", "Writer"):
        rpc = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {**params, "tenant": tenant}}
        answer = await running.door.post("/a2a/writer/rpc", rpc, headers=VERSION)
        assert answer.json()["error"]["code"] == -32602
    for path in ("/a2a/writer/v1/inventory/message:send", "/a2a/writer/inventory/message:send"):
        assert (await running.door.post(path, params, headers=VERSION)).status_code == 404
    assert running.door.published()["TASKS"] == 0


async def test_a_stream_ends_after_the_time_of_one(tmp_path: Path, lines: Lines) -> None:
    async with site(tmp_path, lines.agent, limits={"event_seconds": 0.5}) as found, found.client("writer") as client:
        async with asyncio.timeout(60):
            rest = await told(client.send_message(asking("writer.write", {"value": 2})))
        assert not any(one.status_update.status.state == TaskState.TASK_STATE_COMPLETED for one in rest)
        lines.go_on.set()


async def test_streams_of_a_user_are_counted_with_all_others_and_end_with_the_edge(
    tmp_path: Path, lines: Lines
) -> None:
    async with site(tmp_path, lines.agent, limits={"event_streams_of_user": 1}) as found:
        async with found.client("writer") as client:
            responses = client.send_message(asking("writer.write", {"value": 2}))
            task = (await anext(responses)).task
            with pytest.raises(A2AClientError, match="429"):
                await told(client.subscribe(SubscribeToTaskRequest(id=task.id)))
            found.door.edge.front.stopping.set()
            async with asyncio.timeout(60):
                rest = await told(responses)
            assert not any(one.status_update.status.state == TaskState.TASK_STATE_COMPLETED for one in rest)
        lines.go_on.set()
