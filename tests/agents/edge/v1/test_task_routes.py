from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from support.edge import Door, door
from support.engines import ScriptedEngine, allow, deny
from support.shop import Shop

from sealbus import Agent, Context
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.v1 import task_owners as owners
from sealbus.agents.edge.v1.task_routes import answer_of
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.ports import StoredValue, StreamRefused
from sealbus.bus.sending.message import Content
from sealbus.bus.stream_names import TASKS
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def edge(shop: Shop, engine: ScriptedEngine) -> AsyncIterator[Door]:
    async with door(shop.inventory, shop.pricing, engine=engine) as running:
        yield running


async def test_a_task_is_taken_with_its_status_url_and_done_for_the_user(edge: Door, shop: Shop) -> None:
    answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42", "quantity": 3}, scope="read write")
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["status_url"] == f"/v1/tasks/{answer.json()['id']}"
    await edge.bus.idle()
    assert shop.handled == [("42", 3)]
    user = shop.contexts[0].user
    assert user is not None
    assert (user.sub, user.idp, user.cid, user.scp) == ("alice", edge.issuer.issuer, "shop-web", ("read", "write"))
    assert user.wkl is None
    assert shop.contexts[0].chain == (edge.bus.edge.spiffe_id,)


async def test_the_status_and_the_result_are_for_who_submitted(edge: Door) -> None:
    url = (await edge.post("/v1/tasks/inventory/update", {"item_id": "42", "quantity": 3})).json()["status_url"]
    await edge.bus.idle()
    status = await edge.get(url)
    assert (status.status_code, status.json()["state"], status.json()["final"]) == (200, "completed", True)
    result = await edge.get(status.json()["result_url"], client_id="another-app", jti="another-session")
    assert (result.status_code, result.content, result.headers["content-type"]) == (200, b"null", "application/json")
    for path in (url, f"{url}/result", f"{url}/events"):
        other = await edge.get(path, sub="bob")
        assert (other.status_code, other.json()["code"]) == (404, "not_found")


async def test_a_task_of_an_agent_that_is_down_is_taken_and_done_when_it_is_back(engine: ScriptedEngine) -> None:
    async with door(engine=engine) as edge:
        answer = await edge.post("/v1/tasks/absent/work", {"n": 1})
        assert answer.status_code == 202
        url = answer.json()["status_url"]
        status = await edge.get(url)
        assert (status.json()["state"], status.json()["final"]) == ("submitted", False)
        waiting = await edge.get(f"{url}/result")
        assert (waiting.status_code, waiting.json()["state"], waiting.headers["retry-after"]) == (202, "submitted", "1")
        agent = Agent("absent")

        @agent.task("work")
        async def work(body: dict[str, int], ctx: Context) -> int:
            del ctx
            return body["n"] + 1

        worker = Worker(agent, (await edge.bus.client("absent")).node)
        stop = asyncio.Event()
        async with worker, asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            async with edge.http.stream("GET", f"{url}/events", headers=edge.authorized()) as events:
                assert "completed" in (await events.aread()).decode()
            result = await edge.get(f"{url}/result")
            stop.set()
        assert (result.status_code, result.json()) == (200, 2)


@pytest.mark.parametrize("shown", [False, True])
async def test_a_denied_task_ends_with_the_code_and_its_reasons_only_where_the_policy_shows_them(
    edge: Door, engine: ScriptedEngine, shown: bool
) -> None:
    obligations: tuple[dict[str, object], ...] = ({"type": "show_reasons"},) if shown else ()
    engine.verdict = lambda one: deny("not_owner", obligations=obligations)
    url = (await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})).json()["status_url"]
    await edge.bus.idle()
    status = (await edge.get(url)).json()
    assert (status["state"], status["code"], status.get("reasons")) == (
        "rejected",
        "denied",
        ["not_owner"] if shown else None,
    )
    result = await edge.get(f"{url}/result")
    assert result.status_code == 403
    assert result.headers["content-type"] == "application/problem+json"
    assert (result.json()["code"], result.json().get("reasons")) == ("denied", ["not_owner"] if shown else None)


async def test_a_denied_task_says_what_would_help_and_asks_nothing_of_who_looks_at_it(
    edge: Door, engine: ScriptedEngine
) -> None:
    login: dict[str, object] = {"type": "remedy", "kind": "login", "max_age": 300}
    engine.verdict = lambda one: deny("late", obligations=({"type": "show_reasons"}, login))
    url = (await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})).json()["status_url"]
    await edge.bus.idle()
    status, result = await edge.get(url), await edge.get(f"{url}/result")
    for answer in (status, result):
        assert answer.json()["remedy"] == [{"kind": "login", "max_age": 300}]
        assert answer.json()["via"] == [["spiffe://example.org/agent/inventory", "inventory.update", "denied"]]
    assert (status.status_code, result.status_code) == (200, 403)
    assert "www-authenticate" not in result.headers


async def test_a_result_that_the_edges_own_policy_refuses_is_not_shown_nor_why(
    edge: Door, engine: ScriptedEngine
) -> None:
    engine.verdict = lambda one: deny("own reason") if one["action"]["name"].endswith(".reply") else allow()
    url = (await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})).json()["status_url"]
    await edge.bus.idle()
    result = await edge.get(f"{url}/result")
    assert (result.status_code, result.json()["code"]) == (403, "denied")
    assert "own reason" not in result.text
    async with edge.http.stream("GET", f"{url}/events", headers=edge.authorized()) as events:
        told = (await events.aread()).decode()
    assert "event: problem" in told
    assert "own reason" not in told


async def test_the_idempotency_key_goes_into_the_signed_header(edge: Door, shop: Shop) -> None:
    headers = {"Idempotency-Key": "order-7"}
    for _ in range(2):
        answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"}, headers=headers)
        assert answer.status_code == 202
        assert "only as far as one process of the agent remembers" in answer.json()["note"]
    assert "note" not in (await edge.post("/v1/tasks/inventory/update", {"item_id": "none"})).json()
    await edge.bus.idle()
    assert parse_header(parse_envelope(edge.bus.stored(TASKS)[0].payload).header).idm == "order-7"
    assert shop.handled == [("42", 1)]


async def test_one_idempotency_key_of_two_users_is_two(engine: ScriptedEngine) -> None:
    agent = Agent("absent")
    handled: list[str] = []

    @agent.task("work", once=True)
    async def work(body: dict[str, str], ctx: Context) -> str:
        assert ctx.user is not None
        handled.append(ctx.user.sub)
        return f"of {ctx.user.sub}"

    async with door(agent, engine=engine) as edge:
        headers = {"Idempotency-Key": "order-7"}
        results = []
        for user, body in (("alice", {"a": "1"}), ("bob", {"a": "1"}), ("alice", {"a": "1"}), ("alice", {"a": "2"})):
            url = (await edge.post("/v1/tasks/absent/work", body, headers=headers, sub=user)).json()["status_url"]
            await edge.bus.idle()
            results.append(await edge.get(f"{url}/result", sub=user))
    assert handled == ["alice", "bob"]
    assert [one.json() for one in results[:3]] == ["of alice", "of bob", "of alice"]
    assert (results[3].status_code, results[3].json()["code"]) == (409, "idempotency_conflict")


async def test_a_task_whose_owner_cannot_be_kept_is_told_as_unavailable(edge: Door) -> None:
    edge.bus.broker.fail("STATE", BusUnavailable("full"))
    answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "bus_unavailable", "1")


@pytest.mark.parametrize("task", ["0" * 32, "x", "0" * 33, "A" * 32, "..", "%2e%2e"])
async def test_an_id_of_no_task_is_not_found(edge: Door, task: str) -> None:
    answer = await edge.get(f"/v1/tasks/{task}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_value_that_somebody_spoiled_is_no_task(edge: Door) -> None:
    task = (await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})).json()["id"]
    subject = f"state.edge.request.{task}"
    for spoiled in (b"", b"[]", b"{}", b'{"v":2,"handle":"x","who":"y"}', b'{"v":1,"handle":"x","who":"\xc3\xa9"}'):
        edge.bus.broker.inject(subject, spoiled)
        assert (await edge.get(f"/v1/tasks/{task}")).status_code == 404


async def test_a_fresh_task_is_looked_for_again(edge: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_PAUSE", 0.0)
    url = (await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})).json()["status_url"]
    looked = 0
    get = KeyValue.get

    async def behind(self: KeyValue, subject: str, *, within: float = 5.0) -> StoredValue | None:
        nonlocal looked
        looked += 1
        return None if looked == 1 else await get(self, subject, within=within)

    monkeypatch.setattr(KeyValue, "get", behind)
    assert (await edge.get(url)).status_code == 200
    assert looked == 2


async def test_a_task_that_is_not_stored_in_time_is_told_as_unavailable(shop: Shop, engine: ScriptedEngine) -> None:
    async with door(shop.inventory, engine=engine, limits={"submit_seconds": 0.1}) as edge:
        edge.bus.broker.fail("TASKS", BusUnavailable("away"))
        answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
            503,
            "bus_unavailable",
            "1",
        )
        assert edge.published()["STATE"] == 0


async def test_a_full_stream_is_told_as_overloaded(shop: Shop, engine: ScriptedEngine) -> None:
    async with door(shop.inventory, engine=engine) as edge:
        edge.bus.broker.fail("TASKS", StreamRefused("TASKS: maximum bytes exceeded", 10_077))
        answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")


@pytest.mark.parametrize(
    "typ", ["", "text", "text/pl\u00e4in", "\u65e5/x", "a/b\r\nx: y", "a/b, c/d", "a/b; c", "x" * 200 + "/y"]
)
def test_a_type_that_is_none_does_not_become_a_field_of_the_answer(typ: str) -> None:
    with pytest.raises(EdgeError) as caught:
        answer_of(Content(body=b"x", typ=typ))
    assert (caught.value.status, caught.value.code) == (502, Code.BAD_RESULT)


@pytest.mark.parametrize(
    "typ", ["application/json", "application/vnd.x.v1+json", 'text/plain; charset="utf-8"', "a/b;c=d"]
)
def test_a_type_is_given_on_as_it_is(typ: str) -> None:
    assert answer_of(Content(body=b"x", typ=typ)).headers["content-type"] == typ


@pytest.fixture
async def slow(engine: ScriptedEngine) -> AsyncIterator[tuple[Door, asyncio.Event, asyncio.Event]]:
    """An edge before an agent whose task waits; it says that it has begun, and waits for leave to end."""
    agent, begun, leave = Agent("absent"), asyncio.Event(), asyncio.Event()

    @agent.task("work")
    async def work(body: dict[str, int], ctx: Context) -> int:
        begun.set()
        await leave.wait()
        return 1

    async with door(agent, engine=engine) as edge:
        yield edge, begun, leave
        leave.set()


async def test_who_submitted_a_task_cancels_it_with_any_session_and_client(
    slow: tuple[Door, asyncio.Event, asyncio.Event], engine: ScriptedEngine
) -> None:
    edge, begun, _ = slow
    url = (await edge.post("/v1/tasks/absent/work", {"n": 1})).json()["status_url"]
    await begun.wait()
    content = json.dumps({"reason": "changed my mind"}).encode()
    headers = {"Content-Type": "application/json", **edge.authorized(jti="another-session", client_id="another-app")}
    answer = await edge.http.request("DELETE", url, content=content, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (202, url)
    async with edge.http.stream("GET", f"{url}/events", headers=edge.authorized()) as events:
        assert "canceled" in (await events.aread()).decode()
    status = (await edge.get(url)).json()
    assert (status["state"], status["code"], status["note"]) == ("canceled", "canceled", "changed my mind")
    assert status["by"] == str(edge.bus.edge.spiffe_id)
    result = await edge.get(f"{url}/result")
    assert (result.status_code, result.json()["code"]) == (409, "canceled")
    again = await edge.http.request("DELETE", url, headers=edge.authorized())
    assert (again.status_code, again.json()["code"]) == (409, "task_ended")
    # The policy sees who cancels, and for whom.
    [asked] = [one for one in engine.asked if one["action"]["name"] == "absent._cancel"]
    assert asked["context"]["user"]["id"] == "alice"
    assert asked["subject"]["id"] == str(edge.bus.edge.spiffe_id)


async def test_nobody_else_cancels_it_or_learns_that_it_exists(slow: tuple[Door, asyncio.Event, asyncio.Event]) -> None:
    edge, begun, leave = slow
    url = (await edge.post("/v1/tasks/absent/work", {"n": 1})).json()["status_url"]
    await begun.wait()
    stored = len(edge.bus.stored("TASKS"))
    for path, headers, expected in (
        (url, edge.authorized(sub="bob"), (404, "not_found")),
        ("/v1/tasks/" + "0" * 32, edge.authorized(), (404, "not_found")),
        (url, {}, (401, "no_token")),
    ):
        answer = await edge.http.request("DELETE", path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == expected
    assert len(edge.bus.stored("TASKS")) == stored
    leave.set()
    await edge.bus.idle()
    assert (await edge.get(url)).json()["state"] == "completed"


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'{"reason": 1}',
        b'{"reason": "a\\nb"}',
        b'{"why": "x"}',
        b"{",
        json.dumps({"reason": "x" * 257}).encode(),
    ],
)
async def test_a_body_that_is_no_reason_is_refused(
    slow: tuple[Door, asyncio.Event, asyncio.Event], body: bytes
) -> None:
    edge, begun, _ = slow
    url = (await edge.post("/v1/tasks/absent/work", {"n": 1})).json()["status_url"]
    await begun.wait()
    headers = {"Content-Type": "application/json", **edge.authorized()}
    answer = await edge.http.request("DELETE", url, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
    assert (await edge.get(url)).json()["final"] is False


async def test_a_denied_cancel_is_a_denial(
    slow: tuple[Door, asyncio.Event, asyncio.Event], engine: ScriptedEngine
) -> None:
    edge, begun, _ = slow
    url = (await edge.post("/v1/tasks/absent/work", {"n": 1})).json()["status_url"]
    await begun.wait()
    engine.verdict = lambda asked: deny("no") if asked["action"]["name"] == "absent._cancel" else allow()
    answer = await edge.http.request("DELETE", url, headers=edge.authorized())
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert (await edge.get(url)).json()["final"] is False


async def test_a_cancel_that_nobody_confirms_in_time_may_come_into_force_yet(engine: ScriptedEngine) -> None:
    async with door(engine=engine, limits={"submit_seconds": 0.2}) as edge:
        url = (await edge.post("/v1/tasks/absent/work", {"n": 1})).json()["status_url"]
        answer = await edge.http.request("DELETE", url, headers=edge.authorized())
        assert (answer.status_code, answer.json()["code"]) == (503, "bus_unavailable")
        assert len([one for one in edge.bus.stored("TASKS") if one.subject == "control.absent.cancel"]) == 1
