from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from support.edge import Door, door
from support.engines import ScriptedEngine, Verdict, allow, deny
from support.issuer import TRUSTS_NOBODY
from support.lab import until
from support.shop import Shop

from sealbus.bus.gate.calls import Requests
from sealbus.envelopes.encoding.codec import encode
from sealbus.envelopes.errors import Code, PolicyUnavailable

CALL = "/v1/calls/pricing/quote"


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def edge(shop: Shop, engine: ScriptedEngine) -> AsyncIterator[Door]:
    actions = ("pricing.*", "nobody.home")
    async with door(shop.pricing, engine=engine, actions=actions) as running:
        yield running


async def test_the_agents_answer_comes_back_under_its_own_type(edge: Door, shop: Shop) -> None:
    answer = await edge.post(CALL, {"item_id": "42", "quantity": 2}, region="eu")
    assert (answer.status_code, answer.json()) == (200, {"item_id": "42", "price": 14})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    user = shop.contexts[0].user
    assert user is not None
    assert dict(user.clm) == {"region": "eu"}


async def test_msgpack_goes_through_as_it_came(edge: Door) -> None:
    body = encode({"item_id": "42", "quantity": 2})
    answer = await edge.post(CALL, body, headers={"Content-Type": "application/msgpack"})
    assert (answer.status_code, answer.json()["price"]) == (200, 14)


def _of_calls(verdict: Verdict) -> Any:
    return lambda one: allow() if one["action"]["name"].endswith(".reply") else verdict


@pytest.mark.parametrize("shown", [False, True])
async def test_a_denied_call_is_403_with_reasons_only_where_the_policy_shows_them(
    edge: Door, engine: ScriptedEngine, shown: bool
) -> None:
    obligations: tuple[dict[str, object], ...] = ({"type": "show_reasons"},) if shown else ()
    engine.verdict = _of_calls(deny("not_owner", obligations=obligations))
    answer = await edge.post(CALL, {"item_id": "42"})
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert answer.json().get("reasons") == (["not_owner"] if shown else None)
    assert "www-authenticate" not in answer.headers


LOGIN = {"type": "remedy", "kind": "login", "acr": "urn:x:2", "max_age": 300}
SCOPE = {"type": "remedy", "kind": "scope", "scope": "stock:write"}
ASK = {"type": "remedy", "kind": "ask", "whom": "Frau Müller"}
APPROVAL = {"type": "remedy", "kind": "approval", "action": "pricing.quote"}
LATER = {"type": "remedy", "kind": "later", "after": 90}
NEEDS_LOGIN = 'Bearer error="insufficient_user_authentication", acr_values="urn:x:2", max_age="300", '
NEEDS_SCOPE = 'Bearer error="insufficient_scope", scope="stock:write", '


@pytest.mark.parametrize(
    ("remedies", "status", "challenge", "retry_after"),
    [
        ((LOGIN,), 401, NEEDS_LOGIN, None),
        ((ASK, LOGIN, SCOPE), 401, NEEDS_LOGIN, None),
        ((SCOPE, LOGIN), 403, NEEDS_SCOPE, None),
        ((ASK, APPROVAL), 403, None, None),
        ((LATER, ASK), 403, None, "90"),
    ],
)
async def test_a_remedy_is_asked_for_as_http_asks_for_it(
    edge: Door,
    engine: ScriptedEngine,
    remedies: tuple[dict[str, object], ...],
    status: int,
    challenge: str | None,
    retry_after: str | None,
) -> None:
    engine.verdict = _of_calls(deny("late", obligations=({"type": "show_reasons"}, *remedies)))
    answer = await edge.post(CALL, {"item_id": "42"})
    said = answer.json()
    assert (answer.status_code, said["status"], said["code"]) == (status, status, "denied")
    assert said["remedy"] == [{name: one[name] for name in one if name != "type"} for one in remedies]
    assert said["via"] == [["spiffe://example.org/agent/pricing", "pricing.quote", "denied"]]
    assert answer.headers.get("www-authenticate", "").startswith(challenge or "")
    assert ("www-authenticate" in answer.headers) == (challenge is not None)
    assert answer.headers.get("retry-after") == retry_after


@pytest.mark.parametrize(
    "remedy",
    [
        {"type": "remedy", "kind": "login", "acr": 'a", error="none'},
        {"type": "remedy", "kind": "scope", "scope": "a\r\nset-cookie: b"},
        {"type": "remedy", "kind": "later", "after": -1},
        {"type": "remedy", "kind": "bribe"},
    ],
)
async def test_an_invalid_remedy_changes_nothing(edge: Door, engine: ScriptedEngine, remedy: dict[str, object]) -> None:
    engine.verdict = _of_calls(deny("late", obligations=({"type": "show_reasons"}, remedy)))
    answer = await edge.post(CALL, {"item_id": "42"})
    assert (answer.status_code, answer.json()["reasons"]) == (403, ["late"])
    assert "remedy" not in answer.json()
    assert not {"www-authenticate", "retry-after", "set-cookie"} & answer.headers.keys()


async def test_a_remedy_that_may_not_be_shown_is_not(edge: Door, engine: ScriptedEngine) -> None:
    engine.verdict = _of_calls(deny("late", obligations=(LOGIN,)))
    answer = await edge.post(CALL, {"item_id": "42"})
    assert answer.status_code == 403
    assert not {"reasons", "remedy", "via"} & answer.json().keys()


async def test_an_answer_that_our_own_policy_refuses_is_403_without_its_reasons(
    edge: Door, engine: ScriptedEngine
) -> None:
    engine.verdict = lambda one: deny("own reason") if one["action"]["name"].endswith(".reply") else allow()
    answer = await edge.post(CALL, {"item_id": "42"})
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert "own reason" not in answer.text


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CALL, {"item": "42"}, 422, "bad_body"),
        (CALL, [], 422, "bad_body"),
        ("/v1/calls/pricing/broken", {"item_id": "42"}, 502, "bad_result"),
        ("/v1/calls/nobody/home", {}, 503, "no_listener"),
        ("/v1/calls/pricing/other", {}, 503, "no_listener"),
    ],
)
async def test_what_ends_a_call_has_its_status_and_code(
    edge: Door, path: str, body: object, status: int, code: str
) -> None:
    answer = await edge.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_answers_in_chunks_is_406_and_is_not_run(edge: Door, shop: Shop) -> None:
    answer = await edge.post("/v1/calls/pricing/count", {"item_id": "42", "quantity": 3})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert "answers in chunks" in answer.json()["detail"]
    assert shop.handled == []


async def test_an_answer_in_chunks_of_who_does_not_know_the_mark_is_502_and_says_so(
    edge: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealbus.bus.work.executor.attempt.takes_one_answer", lambda header: False)
    answer = await edge.post("/v1/calls/pricing/count", {"item_id": "42", "quantity": 3})
    assert (answer.status_code, answer.json()["code"]) == (502, "bad_result")
    assert answer.json()["detail"] == "pricing.count answers in chunks, which a call over HTTP does not carry"


async def test_what_is_unavailable_is_503_with_a_time_to_try_again(edge: Door, engine: ScriptedEngine) -> None:
    engine.verdict = _of_calls(PolicyUnavailable("away"))
    answer = await edge.post(CALL, {"item_id": "42"})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
        503,
        "policy_unavailable",
        "1",
    )


async def test_an_unforeseen_error_is_500_and_tells_nothing(
    edge: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Requests, "call", fails)
    answer = await edge.post(CALL, {"item_id": "42"})
    assert (answer.status_code, answer.json()["code"]) == (500, str(Code.INTERNAL))
    assert "secret" not in answer.text + caplog.text
    assert "RuntimeError at test_call_routes.py:" in caplog.text


@pytest.mark.slow
async def test_a_call_that_is_cut_off_at_the_end_is_503_and_leaves_no_traceback(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with asyncio.TaskGroup() as group:
        async with door(shop.pricing, actions=("nobody.home",), limits={"call_seconds": 20}) as edge:
            open_calls = edge.edge.node.requests._open
            # Somebody listens, and does not answer.
            listening = edge.bus.broker.connect().listen("call.nobody.*")
            heard = group.create_task(anext(listening))
            await asyncio.sleep(0)
            client = httpx2.AsyncClient(
                base_url=str(edge.http.base_url), trust_env=False, timeout=60, verify=TRUSTS_NOBODY
            )
            fields = {"Content-Type": "application/json", **edge.authorized()}
            asked = group.create_task(client.post("/v1/calls/nobody/home", content=b"{}", headers=fields))
            await until(lambda: bool(open_calls))
            await heard
        answer = await asked
        await listening.aclose()
        await client.aclose()
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "bus_unavailable", "1")
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    assert not any(record.exc_info for record in ours)
    assert "Traceback" not in caplog.text
    assert any(
        " 503 " in record.getMessage() for record in ours if record.name == "sealbus.agents.edge.http.application"
    )


async def test_a_user_who_asks_too_often_is_held_off_and_another_is_not(shop: Shop) -> None:
    """Each request costs a little more than 1, for its body."""
    async with door(shop.pricing, limits={"user_rate": 0.01, "user_burst": 2.5}) as edge:
        statuses = [(await edge.post(CALL, {"item_id": "42"})).status_code for _ in range(3)]
        held = await edge.post(CALL, {"item_id": "42"})
        other = await edge.post(CALL, {"item_id": "42"}, sub="bob")
    assert statuses == [200, 200, 429]
    assert (held.json()["code"], other.status_code) == ("rate_limited", 200)
    assert 1 <= int(held.headers["retry-after"]) <= 51
    assert len(shop.handled) == 3


async def test_a_client_whose_users_ask_too_often_is_held_off_and_another_is_not(shop: Shop) -> None:
    """Nor is it charged for what a single user is refused. Each request costs 2.7, with its body of 17 bytes."""
    limits = {"client_rate": 0.001, "client_burst": 6, "user_rate": 0.001, "user_burst": 3, "charged_bytes": 10}
    async with door(shop.pricing, limits=limits) as edge:
        asked = [("alice", "shop"), ("alice", "shop"), ("bob", "shop"), ("carol", "shop"), ("carol", "other")]
        answers = [await edge.post(CALL, {"item_id": "42"}, sub=sub, client_id=client) for sub, client in asked]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 429, 200]
    assert answers[3].json()["code"] == "rate_limited"
    assert 300 < int(answers[3].headers["retry-after"]) < 450


async def test_a_large_body_counts_as_several_requests_before_it_is_parsed(shop: Shop) -> None:
    limits = {"user_rate": 0.001, "user_burst": 4, "charged_bytes": 100}
    async with door(shop.pricing, limits=limits) as edge:
        held = await edge.post(CALL, b" " * 400 + b"{")
        small = await edge.post(CALL, {"item_id": "42"}, sub="bob")
        larger = await edge.post(CALL, b" " * 100 + b'{"item_id": "42"}', sub="bob")
        further = await edge.post(CALL, {"item_id": "42"}, sub="bob")
    assert [(one.status_code, one.json().get("code")) for one in (held, further)] == [(429, "rate_limited")] * 2
    assert (small.status_code, larger.status_code) == (200, 200)


async def test_an_address_that_asks_too_often_is_held_off_before_its_token_is_looked_at(shop: Shop) -> None:
    async with door(shop.pricing, limits={"address_rate": 0.001, "address_burst": 1}) as edge:
        first = await edge.http.get("/v1/other")
        held = await edge.post(CALL, {"item_id": "42"})
        assert edge.issuer.fetches == 0
    assert (first.status_code, held.status_code, held.json()["code"]) == (404, 429, "rate_limited")


async def test_the_log_has_one_line_a_request_without_query_token_or_body(
    edge: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token = edge.issuer.token()
    body = {"item_id": "a-secret-body"}
    headers = {"Authorization": f"Bearer {token}"}
    await edge.post(f"{CALL}?q=a-secret-query", body, headers=headers)
    await edge.post("/v1/a-strangers-path", body, headers=headers)
    await edge.post(CALL, body, headers={"Authorization": f"Bearer {token[:-4]}AAAA"})
    lines = [record.getMessage() for record in caplog.records if record.name == "sealbus.agents.edge.http.application"]
    assert [line.rsplit(" ", 3)[0] for line in lines] == [
        f"127.0.0.1 POST {CALL} 200",
        "127.0.0.1 POST (no such path) 404",
        f"127.0.0.1 POST {CALL} 401",
    ]
    # The test's own HTTP client logs what it sends.
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    told = "\n".join(record.getMessage() for record in ours)
    assert not any(secret in told for secret in ("a-secret", "strangers", token, *token.split(".")))


async def test_the_token_reaches_no_message_and_no_record(edge: Door) -> None:
    token = edge.issuer.token()
    answer = await edge.post(CALL, {"item_id": "marker-in-the-body"}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    stored = b"".join(one.payload + one.header_block for name in edge.published() for one in edge.bus.stored(name))
    assert stored
    assert not any(part.encode() in stored for part in token.split("."))


async def test_answer_log_line_and_records_share_the_id_of_a_request(
    edge: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="sealbus.agents.edge.http.application")
    answers = [
        await edge.post(CALL, {"item_id": "42"}),
        await edge.post(CALL, {"item_id": "42"}, headers={"X-Request-Id": "00" * 16}),
        await edge.post("/v1/no-such-path", {}),
        await edge.http.post(CALL),
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    lines = [one.getMessage() for one in caplog.records if one.name == "sealbus.agents.edge.http.application"]
    assert [line.split()[-1] for line in lines] == ids
    decided = [entry.txn.hex() for entry in await edge.bus.audit() if entry.txn is not None]
    # The agent's about the call, and about its answer the edge's.
    assert sorted(decided) == sorted(ids[:2] * 2)
