"""What users have an edge do later: granted by a fresh login, listed and removed by them, done in their name."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.edge import door
from support.engines import ScriptedEngine, Verdict, allow, deny
from support.granting import Desk, asked, grant, granting, headers, login

from sealbus.bus.work.schedules import endpoint
from sealbus.envelopes.message.user_context import standing_session


async def test_a_grant_is_done_for_its_user_who_is_not_there() -> None:
    desk, engine = Desk(), ScriptedEngine()
    async with granting(desk, engine, row={"session_claim": "sid"}) as edge:
        answer = await grant(edge, sub="alice", acr="gold", amr=["pwd"], region="north")
        assert (answer.status_code, answer.json()["name"]) == (201, "often"), answer.text
        [said] = await edge.bus.decisions("edge._schedule")
        assert said.allow
        assert await edge.bus.advance(125) == 2
        assert desk.done == [("alice", "7")] * 2
        [s0] = await headers(edge, "edge._schedule")
        assert [(one.re, one.grt) for one in await headers(edge, "inventory.count")] == [(s0.digest, ())] * 2
        user = next(one for one in engine.asked if one["action"]["name"] == "inventory.count")["context"]["user"]
        assert user["session"] == standing_session(s0.digest)
        assert (user["id"], user["acr"], user["scope"]) == ("alice", "gold", ["inventory:write"])
        assert user["claims"] == {"region": "north"}
        assert user["auth_time"] <= time.time()


async def test_its_user_sees_its_tasks_and_its_place_in_the_list() -> None:
    async with granting(Desk()) as edge:
        await grant(edge, asked(when={"cron": "*/5 * * * *", "zone": "Europe/Berlin"}), sub="alice")
        assert await edge.bus.advance(300) == 1
        [shown] = (await edge.get("/v1/schedules", **login(edge, sub="alice"))).json()["schedules"]
        assert (shown["name"], shown["action"], shown["when"]) == (
            "often",
            "inventory.count",
            "*/5 * * * * Europe/Berlin",
        )
        assert (shown["grants"], shown["overlap"], shown["next"] > shown["last"]["time"]) == ([], "skip", True)
        task = await edge.get(shown["last"]["status_url"], **login(edge, sub="alice"))
        assert (task.status_code, task.json()["state"]) == (200, "completed")
        assert (await edge.get(shown["last"]["status_url"], **login(edge, sub="bob"))).status_code == 404


async def test_two_users_have_grants_of_one_name_and_see_and_remove_only_their_own() -> None:
    desk = Desk()
    async with granting(desk) as edge:
        for sub in ("alice", "bob"):
            assert (await grant(edge, asked(body={"item_id": sub}), sub=sub)).status_code == 201
        assert await edge.bus.advance(65) == 2
        assert sorted(desk.done) == [("alice", "alice"), ("bob", "bob")]
        assert (
            await edge.http.delete("/v1/schedules/often", headers=edge.authorized(**login(edge, sub="carol")))
        ).status_code == 404
        gone = await edge.http.delete("/v1/schedules/often", headers=edge.authorized(**login(edge, sub="alice")))
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await edge.get("/v1/schedules", **login(edge, sub="alice"))).json() == {"schedules": []}
        [left] = (await edge.get("/v1/schedules", **login(edge, sub="bob"))).json()["schedules"]
        assert left["name"] == "often"
        assert await edge.bus.advance(120) == 2
        assert sorted(desk.done)[1:] == [("bob", "bob")] * 3
        again = await edge.http.delete("/v1/schedules/often", headers=edge.authorized(**login(edge, sub="alice")))
        assert again.status_code == 404


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"when": {"every": 59}}, 400, "malformed"),
        ({"when": {"every": 60.5}}, 400, "malformed"),
        ({"when": {"cron": "0 0 30 2 *", "zone": "UTC"}}, 400, "malformed"),
        ({"when": {"at": "2020-01-01T00:00:00Z"}}, 400, "malformed"),
        ({"when": {"at": "2030-01-01T00:00:00"}}, 400, "malformed"),
        ({"when": "soon"}, 400, "malformed"),
        ({"grants": ...}, 400, "malformed"),
        ({"grants": None}, 400, "malformed"),
        ({"grants": [1]}, 400, "malformed"),
        ({"name": "a" * 40}, 400, "malformed"),
        ({"name": "a.b"}, 400, "malformed"),
        ({"overlap": "all"}, 400, "malformed"),
        ({"body": "x" * 50_000}, 400, "malformed"),
        ({"more": 1}, 400, "malformed"),
        ({"action": "hidden.work"}, 404, "not_found"),
        ({"action": "inventory._cancel"}, 400, "malformed"),
    ],
)
async def test_what_nobody_may_grant_is_refused_and_nothing_is_kept(
    changes: dict[str, Any], status: int, code: str
) -> None:
    async with granting(Desk()) as edge:
        answer = await grant(edge, asked(**changes))
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
        assert edge.bus.stored("HELD") == []


@pytest.mark.parametrize(("days", "status"), [(89, 201), (91, 400)])
async def test_a_grant_lasts_90_days_at_most_and_30_unless_said(days: int, status: int) -> None:
    async with granting(Desk()) as edge:
        until = datetime.now(UTC) + timedelta(days=days)
        assert (await grant(edge, asked(until=until.isoformat()))).status_code == status
        unsaid = datetime.fromisoformat((await grant(edge)).json()["until"])
        assert timedelta(days=29, hours=23) < unsaid - datetime.now(UTC) < timedelta(days=30, hours=1)


@pytest.mark.parametrize("login_time", [None, -301])
async def test_a_login_that_is_too_old_is_asked_for_again(login_time: int | None) -> None:
    async with granting(Desk()) as edge:
        now = edge.edge.node.clock() // 1_000_000
        answer = await grant(edge, auth_time=None if login_time is None else now + login_time)
        assert (answer.status_code, answer.json()["code"]) == (401, "denied")
        assert 'error="insufficient_user_authentication"' in answer.headers["www-authenticate"]
        assert "max_age" in answer.headers["www-authenticate"]
        assert edge.bus.stored("HELD") == []


async def test_who_grants_needs_the_scope_and_who_ends_does_not() -> None:
    async with granting(Desk()) as edge:
        answer = await grant(edge, scope="inventory:write")
        assert (answer.status_code, answer.json()["code"]) == (403, "denied")
        assert 'scope="sealbus:schedule"' in answer.headers["www-authenticate"]
        await grant(edge)
        fields = edge.authorized(**login(edge, scope="", auth_time=None))
        assert (await edge.http.delete("/v1/schedules/often", headers=fields)).status_code == 204


async def test_the_edges_policy_decides() -> None:
    def verdict(asked: dict[str, Any]) -> Verdict:
        return deny("no") if asked["context"]["user"]["id"] == "mallory" else allow()

    async with granting(Desk(), ScriptedEngine(verdict)) as edge:
        assert (await grant(edge, sub="mallory")).status_code == 403
        assert edge.bus.stored("HELD") == []
        assert (await grant(edge, sub="alice")).status_code == 201


async def test_without_the_setting_there_is_no_such_path() -> None:
    async with door(Desk().agent) as edge:
        assert (await grant(edge)).status_code == 404


async def test_one_user_has_a_bounded_number_and_another_is_not_kept_from_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "STANDING_OF_USER", 2)
    async with granting(Desk()) as edge:
        answers = [await grant(edge, asked(name=f"n{number}"), sub="alice") for number in range(3)]
        assert [one.status_code for one in answers] == [201, 201, 422]
        assert answers[-1].json()["code"] == "too_many_schedules"
        assert (await grant(edge, asked(name="n1"), sub="alice")).status_code == 201
        assert (await grant(edge, sub="bob")).status_code == 201
