"""Pages of other origins: closed, but for those that are named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import httpx2
import pytest
from starlette.datastructures import Headers
from support.edge import Door, door
from support.engines import ScriptedEngine
from support.shop import Shop

from sealbus.agents.edge.http.cors import Cors, preflight_answer
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.envelopes.errors import ConfigurationError

APP = "https://app.example.org"
CALL = "/v1/calls/pricing/quote"
TASK = "/v1/tasks/inventory/update"
ONE = f"/v1/tasks/{'0' * 32}"
METADATA = "/.well-known/oauth-protected-resource"
ALLOWED = "access-control-"


@pytest.fixture
async def edge() -> AsyncIterator[Door]:
    shop = Shop()
    origins = (APP, "http://localhost:3000")
    async with door(shop.inventory, shop.pricing, engine=ScriptedEngine(), cors=origins) as running:
        yield running


async def ask(edge: Door, path: str, method: str, fields: str = "", **others: str) -> httpx2.Response:
    """Send a preflight as a browser does, without a token."""
    asked = {"Origin": APP, "Access-Control-Request-Method": method, **others}
    if fields:
        asked["Access-Control-Request-Headers"] = fields
    return await edge.http.request("OPTIONS", path, headers=asked)


def granted(answer: httpx2.Response) -> Mapping[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith(ALLOWED)}


@pytest.mark.parametrize(
    "origin", [APP, "https://app.example.org:8443", "https://[2001:db8::1]", "http://localhost:3000"]
)
def test_an_origin_is_what_a_browser_sends(origin: str) -> None:
    assert Cors(frozenset({origin})).origin(Headers({"origin": origin})) == origin


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1", "http://127.0.0.1:5173", "http://[::1]:5173", "http://localhost"]
)
def test_plain_http_is_for_this_machine(origin: str) -> None:
    Cors(frozenset({origin}))


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "app.example.org",
        "http://app.example.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "https://app.example.org/",
        "https://app.example.org/path",
        "https://*.example.org",
        "https://App.example.org",
        "HTTPS://app.example.org",
        "https://app.example.org:443",
        "http://localhost:80",
        "https://app.example.org:0",
        "https://app.example.org:123456",
        "https://user@app.example.org",
        "https://app..example.org",
        "https://.example.org",
        "https://app.example.org.",
        "https://app.example.org\r\nx: y",
        "https://äpp.example.org",
        "https://" + "a" * 300,
        "file://",
    ],
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigurationError, match=r"edge\.cors .*write an origin as browsers do"):
        Cors(frozenset({APP, origin}))


def test_everybody_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigurationError, match=r"edge\.cors '\*': any page could use a token"):
        Cors(frozenset({"*"}))


def test_the_longest_origin() -> None:
    longest = "https://" + "a" * 292
    assert Cors(frozenset({longest})).origins == {longest}
    with pytest.raises(ConfigurationError):
        Cors(frozenset({longest + "a"}))


@pytest.mark.parametrize(
    ("method", "asked", "found"),
    [
        ("OPTIONS", ["POST"], "POST"),
        ("OPTION", ["POST"], None),
        ("OPTIONSX", ["POST"], None),
        ("options", ["POST"], None),
        ("POST", ["POST"], None),
        ("OPTIONS", ["POST", "DELETE"], None),
        ("OPTIONS", [], None),
    ],
)
def test_a_preflight_asks_for_one_method(method: str, asked: list[str], found: str | None) -> None:
    fields = [(b"origin", APP.encode())] + [(b"access-control-request-method", one.encode()) for one in asked]
    assert Cors(frozenset({APP})).preflight(method, Headers(raw=fields)) == found


@pytest.mark.parametrize("fields", [["authorization", "x-other"], ["x-other", "authorization"]])
def test_every_line_of_fields_that_a_preflight_asks_for_counts(fields: list[str]) -> None:
    raw = [(b"access-control-request-headers", one.encode()) for one in fields]
    with pytest.raises(EdgeError):
        preflight_answer(Headers(raw=raw), ["POST"])
    assert preflight_answer(Headers(raw=raw[:0]), ["POST"]).status_code == 204


@pytest.mark.parametrize(
    ("path", "method", "methods"),
    [
        (CALL, "POST", "POST"),
        (TASK, "POST", "POST"),
        (ONE, "GET", "DELETE, GET"),
        (ONE, "DELETE", "DELETE, GET"),
        (f"{ONE}/result", "GET", "GET"),
        (f"{ONE}/events", "GET", "GET"),
        ("/v1/tasks/pricing/result", "POST", "POST"),
        (METADATA, "GET", "GET"),
    ],
)
async def test_a_preflight_is_answered_without_a_token(edge: Door, path: str, method: str, methods: str) -> None:
    answer = await ask(edge, path, method, "authorization,content-type, DPoP ,idempotency-key,last-event-id")
    assert (answer.status_code, answer.content) == (204, b"")
    assert granted(answer) == {
        "access-control-allow-origin": APP,
        "access-control-allow-methods": methods,
        "access-control-allow-headers": "Authorization, Content-Type, DPoP, Idempotency-Key, Last-Event-ID",
        "access-control-expose-headers": "X-Request-Id, DPoP-Nonce, WWW-Authenticate, Location, Retry-After",
        "access-control-max-age": "600",
    }
    assert answer.headers["vary"] == "Origin"
    assert edge.issuer.fetches == 0


@pytest.mark.parametrize(
    ("path", "method", "fields", "status", "code"),
    [
        ("/v1/other", "POST", "", 404, "not_found"),
        (CALL, "PUT", "", 405, "method_not_allowed"),
        (CALL, "GET", "", 405, "method_not_allowed"),
        (CALL, "post", "", 405, "method_not_allowed"),
        (CALL, "OPTIONS", "", 405, "method_not_allowed"),
        (f"{ONE}/result", "DELETE", "", 405, "method_not_allowed"),
        (CALL, "POST", "x-other", 400, "malformed"),
        (CALL, "POST", "authorization, x-other", 400, "malformed"),
        (CALL, "POST", "*", 400, "malformed"),
        (CALL, "POST", "cookie", 400, "malformed"),
        (CALL, "POST", "authorization,", 400, "malformed"),
    ],
)
async def test_any_other_preflight_is_an_error_as_always(
    edge: Door, path: str, method: str, fields: str, status: int, code: str
) -> None:
    answer = await ask(edge, path, method, fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "access-control-allow-methods" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.org.evil.example",
        "https://app.example.org:8443",
        "null",
        "*",
        APP.upper(),
    ],
)
async def test_another_origin_gets_nothing(edge: Door, origin: str) -> None:
    refused = await ask(edge, CALL, "POST", Origin=origin)
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    answer = await edge.post(CALL, {"item_id": "42"}, headers={"Origin": origin})
    assert answer.status_code == 200
    for one in (refused, answer):
        assert granted(one) == {}
        assert one.headers["vary"] == "Origin"


async def test_two_origins_are_none(edge: Door) -> None:
    fields = [("Origin", APP), ("Origin", APP), ("Access-Control-Request-Method", "POST")]
    answer = await edge.http.request("OPTIONS", CALL, headers=fields)
    assert (answer.status_code, granted(answer)) == (405, {})


async def test_an_answer_and_an_error_can_be_read_with_their_fields(edge: Door) -> None:
    good = await edge.post(TASK, {"item_id": "42"}, headers={"Origin": APP})
    denied = await edge.http.post(TASK, headers={"Origin": APP})
    metadata = await edge.http.get(METADATA, headers={"Origin": APP})
    assert (good.status_code, denied.status_code, metadata.status_code) == (202, 401, 200)
    for answer in (good, denied, metadata):
        assert granted(answer) == {
            "access-control-allow-origin": APP,
            "access-control-expose-headers": "X-Request-Id, DPoP-Nonce, WWW-Authenticate, Location, Retry-After",
        }
    # What a cache keeps for one is not given to another.
    assert (await edge.http.get(METADATA)).headers["vary"] == "Origin"


async def test_it_is_closed_unless_said() -> None:
    async with door(Shop().pricing, engine=ScriptedEngine()) as edge:
        refused = await ask(edge, CALL, "POST")
        answer = await edge.post(CALL, {"item_id": "42"}, headers={"Origin": APP})
    assert (refused.status_code, answer.status_code) == (405, 200)
    for one in (refused, answer):
        assert granted(one) == {}
        assert "vary" not in one.headers


async def test_preflights_count_for_their_address() -> None:
    limits = {"address_rate": 0.001, "address_burst": 1}
    async with door(Shop().pricing, engine=ScriptedEngine(), cors=(APP,), limits=limits) as edge:
        assert [(await ask(edge, CALL, "POST")).status_code for _ in range(2)] == [204, 429]
