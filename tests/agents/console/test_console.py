"""The console on a whole development environment: who is let in, what they see, and that each look is decided and recorded.

The browser is a client of HTTP that keeps cookies; what a real one makes of the pages is tested beside it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.console_login import cookies_of, json_of, log_in
from support.settings import changed
from support.shapes import unlike

from sealbus.agents.console import area_access, routes
from sealbus.agents.console import views as views_module
from sealbus.agents.console.area_access import AreaAccess
from sealbus.agents.console.console import open_console
from sealbus.agents.console.deciding_policies import DecidingPolicies
from sealbus.agents.console.documents import DOCUMENTS
from sealbus.agents.console.edge_client import EdgeRefused
from sealbus.agents.console.login import MARK as FIELD
from sealbus.agents.console.views import Views
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.users import dev_token
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.open import open_connected_node, open_node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.background import Background
from sealbus.bus.clocks import wall_clock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.limits import SECOND

MARK = {FIELD: "1"}
HOSTILE = "<b>x</b>\u202e\u200f"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture
async def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Environment]:
    options = DevOptions(
        folder=folder,
        agents=("shop-web", "planner", "inventory", "pricing"),
        port=0,
        notary=True,
        console_port=0,
    )
    async with open_environment(options) as running:
        yield running


@pytest.fixture
async def working(shop: Environment) -> AsyncIterator[Environment]:
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(Background())
        for agent in (inventory.agent, pricing.agent):
            node = await stack.enter_async_context(open_node(agent.name, shop.settings))
            worker = await stack.enter_async_context(Worker(agent, node))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        yield shop
        stop.set()


@pytest.fixture
async def web(shop: Environment) -> AsyncIterator[httpx2.AsyncClient]:
    hooks = {"response": [expect_a_document]}
    async with httpx2.AsyncClient(
        base_url=shop.console, follow_redirects=False, timeout=60, event_hooks=hooks
    ) as client:
        yield client


async def expect_a_document(answer: httpx2.Response) -> None:
    """Expect of every answer that it is what its type says, field by field, as the pages' tests take it to be."""
    path = answer.request.url.path
    kind = DOCUMENTS.get(path) or DOCUMENTS.get(f"{path.rpartition('/')[0]}/{{id}}")
    if answer.status_code == 200 and kind is not None:
        assert list(unlike(json.loads(await answer.aread()), kind)) == [], path


async def asked(shop: Environment, user: str, item: str) -> httpx2.Response:
    """Read an item at the edge as `user`."""
    token = await asyncio.to_thread(dev_token, shop.settings, user)
    async with httpx2.AsyncClient(base_url=shop.edge.front.resource, timeout=60) as edge:
        return await edge.post(
            "/v1/calls/inventory/read", json={"item_id": item}, headers={"authorization": f"Bearer {token}"}
        )


async def rows(web: httpx2.AsyncClient, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json_of(await web.get("/api/decisions", params=filters))["rows"]
    return found


async def test_who_is_not_logged_in_sees_only_the_page(web: httpx2.AsyncClient) -> None:
    page = await web.get("/decisions/" + "a" * 32)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "require-trusted-types-for 'script'" in policy
    assert "trusted-types 'none'" in policy
    assert "unsafe" not in policy
    for path in (
        "session", "live", "decisions", "decisions/" + "a" * 32, "tasks", "approvals", "dead", "agents", "schedules",
        "policy", "log",
    ):  # fmt: skip
        assert json_of(await web.get(f"/api/{path}"), 401)["code"] == "login_required"
    for path in ("tasks/cancel", "approvals/" + "a" * 64, "log/verify"):
        assert json_of(await web.post(f"/api/{path}", json={}, headers=MARK), 401)["code"] == "login_required"


async def test_a_login_gives_a_cookie_that_no_other_site_can_use(web: httpx2.AsyncClient) -> None:
    ended = await log_in(web, "olga", to="/tasks")
    assert 'url=/tasks"' in ended.text
    [session] = [one for one in cookies_of(ended) if one.startswith("sealbus_console=")]
    assert "HttpOnly" in session
    assert "SameSite=Strict" in session
    said = json_of(await web.get("/api/session"))
    assert said["user"] == "olga"
    assert said["trust_domain"] == "example.org"
    assert "access_token" not in json.dumps(said)
    # A change needs the field that other sites' pages cannot send along.
    assert json_of(await web.post("/api/log/verify", json={}), 403)["code"] == "denied"
    crossing = {**MARK, "sec-fetch-site": "cross-site"}
    assert json_of(await web.post("/api/log/verify", json={}, headers=crossing), 403)["code"] == "denied"
    for fields in ({}, crossing):
        assert json_of(await web.post("/logout", headers=fields), 403)["code"] == "denied"
    assert json_of(await web.get("/api/session"))["user"] == "olga"
    await web.post("/logout", headers=MARK)
    json_of(await web.get("/api/session"), 401)


async def test_a_login_ends_nowhere_else_and_takes_no_answer_of_another(web: httpx2.AsyncClient) -> None:
    for to in ("//evil.example", "https://evil.example", "/\\evil.example", "/x?y=1", '/"><script>'):
        assert (await web.get("/login", params={"to": to})).status_code == 400
    await web.get("/login", params={"to": "/"})
    answer = await web.get("/callback", params={"code": "x", "state": "another"})
    assert answer.status_code == 400
    assert not [one for one in cookies_of(answer) if one.startswith("sealbus_console=")]
    # Another name for the same address.
    assert (await web.get("/", headers={"host": "evil.example"})).status_code == 404


async def test_who_may_not_look_is_denied_by_the_policy_and_that_is_recorded(
    shop: Environment, web: httpx2.AsyncClient
) -> None:
    await log_in(web, "alice")
    denied = json_of(await web.get("/api/decisions"), 403)
    assert denied["code"] == "denied"
    async with httpx2.AsyncClient(base_url=shop.console, timeout=60) as other:
        await log_in(other, "olga")
        found = json_of(await other.get(f"/api/decisions/{denied['message']}"))["decisions"]
    [decision] = [one for one in found if one["message"]["action"] == "console.view"]
    assert not decision["allow"]
    assert decision["owner"] == "alice"
    assert decision["input"]["action"]["properties"]["area"] == "decisions"


async def test_a_denial_is_explained_from_the_id_in_the_403(working: Environment, web: httpx2.AsyncClient) -> None:
    refused = await asked(working, "carol", "42")
    assert refused.status_code == 403
    await log_in(web, "olga")
    request = refused.headers["x-request-id"]
    [decision] = [
        one
        for one in json_of(await web.get(f"/api/decisions/{request}"))["decisions"]
        if one["message"]["action"] == "inventory.read"
    ]
    assert decision["reasons"] == ["not_owner"]
    assert decision["words"][0]["title"]
    assert decision["words"][0]["remedy"]
    assert (decision["acting"], decision["owner"]) == ("edge", "carol")
    assert [link["role"] for link in decision["chain"]] == ["user", "minter", "sender", "decider"]
    told = decision["explanation"]
    assert told["explained"]
    failed = [one for reason in told["reasons"] for one in reason["failed"]]
    [owner] = [one for one in failed if one["written"] == "user.id == properties.owner"]
    assert {one["written"]: one["value"] for one in owner["looked"]} == {
        "user.id": '"carol"',
        "properties.owner": '"alice"',
    }
    source = told["sources"][owner["file"]]
    assert source["lines"][owner["line"] - source["first"]].strip() == owner["written"]
    assert set(decision["looked"]) >= {"context.user.id", "resource.properties.owner"}
    assert decision["again"] == {
        "same": True, "allow": False, "reasons": ["not_owner"], "revision": decision["policy"]["revision"],
    }  # fmt: skip
    assert decision["outcome"] is None
    # In a terminal it is one command.
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "sealbus"), "policy", "explain", request, "--json",
        "--config", str(working.settings_file), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    [said] = [one for one in map(json.loads, out.splitlines()) if one["action"] == "inventory.read"]
    assert said["explained"]
    assert [one["reason"] for one in said["reasons"]] == ["not_owner"]


async def test_what_was_allowed_has_its_outcome(working: Environment, web: httpx2.AsyncClient) -> None:
    assert (await asked(working, "alice", "42")).status_code == 200
    await log_in(web, "olga")
    [row] = (await rows(web, action="inventory.read", user="alice", decision="allow", limit="1"))[:1]
    assert (row["from"], row["by"], row["allow"], row["reasons"]) == ("edge", "inventory", True, [])
    [decision] = json_of(await web.get(f"/api/decisions/{row['record']}"))["decisions"]
    assert decision["outcome"]["outcome"] == "done"


async def test_a_record_is_proved_by_a_receipt_and_the_log_verifies(
    working: Environment, web: httpx2.AsyncClient
) -> None:
    await asked(working, "alice", "42")
    await log_in(web, "olga")
    # The notary's first checkpoint: until then there is no log to verify.
    async with asyncio.timeout(60):
        while (await web.post("/api/log/verify", json={}, headers=MARK)).status_code == 503:
            pass
    said = json_of(await web.post("/api/log/verify", json={}, headers=MARK))
    assert (said["passed"], said["findings"]) == (True, 0)
    assert json_of(await web.get("/api/log"))["log"]["origin"] == "example.org/development/audit"
    [row] = (await rows(web, action="inventory.read", limit="1"))[:1]
    receipt = await web.get(f"/api/decisions/{row['record']}/receipt")
    if receipt.status_code == 503:
        # The notary has not come to this record yet: the log is behind the stream by design.
        assert "not come so far" in json_of(receipt, 503)["detail"]
    else:
        assert receipt.text.startswith("sealbus-receipt@v1\n")
        [decision] = json_of(await web.get(f"/api/decisions/{row['record']}"))["decisions"]
        logged = decision["evidence"]["logged"]
        assert 0 <= logged["entry"] < logged["checkpoint"]


async def test_the_live_stream_brings_what_is_decided(working: Environment, web: httpx2.AsyncClient) -> None:
    await log_in(web, "olga")
    async with web.stream("GET", "/api/live") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: hello"
        await asked(working, "carol", "42")
        async for line in lines:
            if line.startswith("data: ") and '"carol"' in line:
                break
        row = next(one for one in json.loads(line[6:])["rows"] if one["user"] == "carol")
        assert (row["allow"], row["reasons"]) == (False, ["not_owner"])
        # Who logs out sees no more, in any tab.
        await web.post("/logout", headers=MARK)
        said = [line async for line in lines]
        assert "event: over" in said
        assert "login_required" in said[said.index("event: over") + 1]


async def test_a_right_that_is_taken_away_ends_what_is_shown(
    working: Environment, web: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (routes, area_access):
        monkeypatch.setattr(module, "FOR", 0.1)
    await log_in(web, "olga")
    shown = {"area": "decision", "item": "a" * 32}
    async with web.stream("GET", "/api/live") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: hello"
        json_of(await web.get("/api/session", params=shown))
        policy = tmp_path / "policy"
        shutil.copytree(working.policy, policy)
        users = policy / "sealbus" / "registry" / "users" / "data.json"
        users.write_text(json.dumps(json.loads(users.read_text()) | {"olga": {"customers": {}}}))
        working.publish_policy(policy)
        try:
            # The map is drawn twice a second: nothing needs to be decided for that.
            async with asyncio.timeout(60):
                said = [line async for line in lines]
            assert "denied" in said[said.index("event: over") + 1]
            assert json_of(await web.get("/api/session", params=shown), 403)["code"] == "denied"
        finally:
            working.publish_policy()


@pytest.mark.parametrize(
    "trouble", [BusUnavailable("the edge is away"), EdgeRefused(503, {"code": "bus_unavailable"}, "a" * 32)]
)
async def test_an_edge_that_is_away_ends_the_stream_and_no_right(
    working: Environment, web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, trouble: SealbusError
) -> None:
    async def check(*_: object, **__: object) -> None:
        raise trouble

    await log_in(web, "olga")
    async with web.stream("GET", "/api/live") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: hello"
        with monkeypatch.context() as patched:
            patched.setattr(routes, "FOR", 0.0)
            patched.setattr(AreaAccess, "check", check)
            async with asyncio.timeout(60):
                said = [line async for line in lines]
        assert "event: over" not in said
    json_of(await web.get("/api/session"))


@pytest.mark.parametrize("query", ["area=none", "area=", "area=decision&item=x"])
async def test_what_is_no_area_is_not_asked_about(web: httpx2.AsyncClient, query: str) -> None:
    await log_in(web, "olga")
    assert json_of(await web.get(f"/api/session?{query}"), 400)["code"] == "malformed"


async def test_agents_tasks_and_policy_are_shown(working: Environment, web: httpx2.AsyncClient) -> None:
    await log_in(web, "olga")
    agents = {one["name"]: one for one in json_of(await web.get("/api/agents"))["agents"]}
    assert agents["inventory"]["state"] == "ready"
    policy = json_of(await web.get("/api/policy"))
    assert (policy["engine"], policy["problem"]) == ("embedded", "")
    token = await asyncio.to_thread(dev_token, working.settings, "alice")
    async with httpx2.AsyncClient(base_url=working.edge.front.resource, timeout=60) as edge:
        stored = await edge.post(
            "/v1/tasks/inventory/update",
            json={"item_id": "42", "quantity": 3},
            headers={"authorization": f"Bearer {token}"},
        )
    assert stored.status_code == 202
    async with asyncio.timeout(60):
        while True:
            [task] = json_of(await web.get("/api/tasks", params={"agent": "inventory", "limit": "1"}))["tasks"]
            if task["state"] == "completed":
                break
    assert (task["action"], task["user"], task["verified"]) == ("inventory.update", "alice", True)
    for path in ("dead", "schedules", "approvals"):
        json_of(await web.get(f"/api/{path}"))


async def test_a_cancel_is_decided_for_the_person_and_again_by_the_agent(
    working: Environment, web: httpx2.AsyncClient
) -> None:
    token = await asyncio.to_thread(dev_token, working.settings, "alice")
    async with httpx2.AsyncClient(base_url=working.edge.front.resource, timeout=60) as edge:
        await edge.post(
            "/v1/tasks/inventory/update",
            json={"item_id": "42", "quantity": 3},
            headers={"authorization": f"Bearer {token}"},
        )
    await log_in(web, "olga")
    [task] = json_of(await web.get("/api/tasks", params={"agent": "inventory", "limit": "1"}))["tasks"]
    said = {"handle": task["handle"], "action": "inventory.read", "reason": "too late"}
    assert json_of(await web.post("/api/tasks/cancel", json=said, headers=MARK), 422)["code"] == "other_action"
    # The starter policy lets nobody cancel as an operator: that is the agent's to say, not the console's.
    said["action"] = task["action"]
    assert json_of(await web.post("/api/tasks/cancel", json=said, headers=MARK), 403)["code"] == "denied"
    [row] = (await rows(web, action="console.cancel", user="olga"))[:1]
    assert row["allow"]


async def test_the_log_says_for_how_long_records_wait(
    working: Environment, web: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that stays as it was is a dead notary to who looks at it."""
    await log_in(web, "olga")

    async def log(views: Views) -> dict[str, Any]:
        found = (await views.log())["log"]
        assert found is not None
        return {**found}

    async with (
        open_connected_node("console", working.settings, counters=Counters()) as (node, connection),
        DecidingPolicies(working.settings, connection) as policies,
    ):
        views = Views(working.settings, node, connection, policies)
        await asked(working, "alice", "42")
        # What the notary stores about its own checkpoint waits for nothing.
        async with asyncio.timeout(60):
            while (await log(views))["waiting_s"] != 0:  # noqa: ASYNC110  files have no event
                await asyncio.sleep(0.1)
        notary = working.settings.control.notary
        assert notary.folder is not None
        kept = await asyncio.to_thread(shutil.copytree, notary.folder, tmp_path / "log")
        control = changed(working.settings.control, notary=changed(notary, folder=kept))
        settings = changed(working.settings, control=control)
        dead = Views(settings, node, connection, policies)
        assert (await log(dead))["waiting_s"] == 0
        await asked(working, "alice", "42")
        first = (await log(dead))["waiting_s"]
        assert 0 < first < 60
        monkeypatch.setattr(views_module, "wall_clock", lambda: wall_clock() + 90 * SECOND)
        late = await log(dead)
        assert late["waiting_s"] > first + 89
        assert late["age_s"] > 89
        # Without the places of its entries nothing is known.
        await asyncio.to_thread(shutil.rmtree, kept / "tile" / "places")
        assert (await log(dead))["waiting_s"] is None


async def test_what_is_no_id_is_refused(web: httpx2.AsyncClient) -> None:
    await log_in(web, "olga")
    for name in ("x", "a" * 31, "A" * 32, HOSTILE, "%2e%2e"):
        assert (await web.get(f"/api/decisions/{name}")).status_code in (400, 404)
    assert json_of(await web.get("/api/decisions/" + "b" * 32), 404)["code"] == "not_found"


async def test_settings_that_would_let_others_read_along_are_refused(shop: Environment) -> None:
    refused: list[tuple[dict[str, object], str]] = [
        ({"address": "0.0.0.0:0"}, "console.url must be"),
        ({"url": "http://console.example"}, "console.url must be"),
        ({"url": "https://console.example/x"}, "console.url must be"),
        ({"edge": "http://edge.example"}, "console.edge must be"),
        ({"url": "https://console.example", "address": "0.0.0.0:0"}, "is not loopback"),
        ({"certificate": Path("x.pem")}, "go together"),
    ]
    for change, said in refused:
        settings = changed(shop.settings, console=changed(shop.settings.console, **change))
        with pytest.raises(ConfigurationError, match=said):
            async with open_console(settings, counters=Counters()):
                pass
    settings = changed(shop.settings, edge=changed(shop.settings.edge, resource=None))
    with pytest.raises(ConfigurationError, match=r"console\.edge is not set"):
        async with open_console(settings, counters=Counters()):
            pass
    settings = changed(shop.settings, client=changed(shop.settings.client, issuer=None))
    with pytest.raises(ConfigurationError, match=r"console\.issuer"):
        async with open_console(settings, counters=Counters()):
            pass
