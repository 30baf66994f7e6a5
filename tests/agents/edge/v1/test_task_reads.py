"""Who reads their tasks again and again costs no evidence: each read is decided, and the same decision recorded once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from support.edge import Door, door
from support.engines import ScriptedEngine, allow, deny
from support.shop import Shop

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import READ_AGAIN, DenialsRecord

REPLY = "inventory.update.reply"
UNLIMITED = {"read_rate": 1e6}


async def finished(edge: Door) -> str:
    url: str = (await edge.post("/v1/tasks/inventory/update", {"item_id": "42", "quantity": 3})).json()["status_url"]
    await edge.bus.idle()
    return url


async def evidence(edge: Door) -> tuple[list[DecisionRecord], Counter[str]]:
    """Return the decisions about answers, and what was only counted, once the edge has left and stored all of it."""
    decisions, counts = list[DecisionRecord](), Counter[str]()
    for entry in await edge.bus.audit():
        if isinstance(entry.record, DenialsRecord):
            assert entry.record.iss == edge.bus.names.id_of("inventory")
            counts.update(entry.record.counts)
        elif isinstance(entry.record, DecisionRecord) and entry.record.action == REPLY:
            decisions.append(entry.record)
    return decisions, counts


async def test_a_user_who_polls_does_not_fill_the_evidence() -> None:
    engine = ScriptedEngine()
    async with door(Shop().inventory, engine=engine, limits=UNLIMITED) as edge:
        url = await finished(edge)
        before, asked = len(edge.bus.stored("AUDIT")), len(engine.asked)
        for path in (url, f"{url}/result", url):
            for _ in range(10):
                assert (await edge.get(path)).status_code == 200
        assert len(engine.asked) == asked + 30
    decisions, counts = await evidence(edge)
    assert len(decisions) == 1
    assert b'"id":"alice"' in (decisions[0].input or b"")
    # Over two minutes, if one began meanwhile.
    assert counts == {READ_AGAIN: 29}
    assert len(edge.bus.stored("AUDIT")) <= before + 3


async def test_another_session_client_or_verdict_is_recorded_anew() -> None:
    engine = ScriptedEngine()
    async with door(Shop().inventory, engine=engine, limits=UNLIMITED) as edge:
        url = await finished(edge)
        readers: list[dict[str, Any]] = [{}, {"jti": "another-session"}, {"client_id": "another-app"}, {}]
        for claims in readers:
            assert (await edge.get(url, **claims)).status_code == 200
        engine.verdict = lambda one: deny("not_today") if one["action"]["name"] == REPLY else allow()
        for _ in range(3):
            assert (await edge.get(url)).status_code == 403
    decisions, counts = await evidence(edge)
    assert [one.allow for one in decisions] == [True, True, True, False]
    assert counts == {READ_AGAIN: 1, "denied": 2}


async def test_looks_have_a_rate_for_each_user() -> None:
    async with door(Shop().inventory, limits={"read_rate": 0.001, "read_burst": 3}) as edge:
        url = await finished(edge)
        answers = [(await edge.get(url, client_id=f"app-{one}")).status_code for one in range(4)]
        assert answers == [200, 200, 200, 429]
        assert (await edge.get(f"{url}/result")).status_code == 429
        assert (await edge.get(f"{url}/events")).status_code == 429
        # Other users have their own, and other requests are no looks.
        assert (await edge.get(url, sub="bob")).status_code == 404
        assert (await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})).status_code == 202


def test_a_client_that_looks_once_a_second_is_far_from_the_rate() -> None:
    assert 10 <= DEFAULT_EDGE_LIMITS.read_rate < DEFAULT_EDGE_LIMITS.user_rate
