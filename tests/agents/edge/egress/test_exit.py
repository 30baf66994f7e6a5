"""Requests of agents to APIs outside: decided like any call, and answered without what the API was shown."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pydantic import BaseModel
from support.egress import SECRET, FixedSecret, ScriptedApi, answered, api_of, way_out
from support.engines import ScriptedEngine, allow, deny

from sealbus import Agent, Context, Denied, RemoteError
from sealbus.agents.edge.egress.api import ANSWER_BYTES
from sealbus.agents.sdk.http import MOST_FIELDS, ApiRequest
from sealbus.envelopes.errors import ConfigurationError

reader = Agent("reader")


class ShownIn(FixedSecret):
    """A key that is shown in `field`."""

    def __init__(self, field: str) -> None:
        super().__init__()
        self.field = field

    def fields(self, secret: str) -> dict[str, str]:
        return {self.field: secret}


class Look(BaseModel):
    customer: str
    task: bool = False


class Seen(BaseModel):
    status: int
    text: str
    location: str = ""


@reader.call("look")
async def look(body: Look, ctx: Context) -> Seen:
    """Read a customer through the exit, with what an agent has."""
    http = ctx.http("crm", timeout=20, task=body.task)
    found = await http.get(f"/customers/{body.customer}", params={"view": "short"}, headers={"Accept-Language": "de"})
    return Seen(status=found.status_code, text=found.text)


@reader.call("note")
async def note(body: Look, ctx: Context) -> Seen:
    """Write a note, at the exit named in full."""
    found = await ctx.http("exit.crm").post(f"/customers/{body.customer}/notes", json={"text": "hello"})
    return Seen(status=found.status_code, text=found.text, location=found.headers.get("location", ""))


@pytest.mark.parametrize("task", [False, True])
async def test_an_agent_reads_an_api_with_the_user_of_its_message(task: bool) -> None:
    secret = FixedSecret()
    async with (
        ScriptedApi(lambda _: answered(200, b'{"name": "ACME"}')) as api,
        way_out(api_of(api.url, credential=secret), agents=[reader]) as out,
    ):
        client = await out.bus.client("shop-web")
        user = out.bus.user("alice", "shop-web")
        body = Look(customer="acme", task=task)
        seen = await client.call("reader.look", body, returns=Seen, user=user)
        documents = [one for one in out.engine.asked if one["action"]["name"] == "exit.crm"]
        records = await out.bus.decisions("exit.crm")
    assert seen == Seen(status=200, text='{"name": "ACME"}')
    [asked] = api.asked
    assert (asked.method, asked.target) == ("GET", "/api/customers/acme?view=short")
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["accept-language"] == "de"
    assert asked.headers["host"] == api.url.split("/")[2]
    assert asked.headers["accept-encoding"] == "identity"
    assert "python" not in asked.headers["user-agent"]
    assert [one.sub for one in secret.users if one is not None] == ["alice"]
    assert [one["resource"] for one in documents] == [
        {
            "type": "http",
            "id": "crm GET /customers/{customer}",
            "properties": {
                "api": "crm",
                "host": "localhost",
                "method": "GET",
                "template": "/customers/{customer}",
                "customer": "acme",
            },
        }
    ]
    assert documents[0]["action"]["properties"] == {
        "method": "GET",
        "path": "/customers/acme",
        "query": "view=short",
    }
    assert documents[0]["context"]["user"]["id"] == "alice"
    assert documents[0]["context"]["kind"] == ("task" if task else "call")
    assert [one.rpartition("/")[2] for one in documents[0]["context"]["chain"]] == ["shop-web", "reader"]
    assert [(one.allow, one.action) for one in records] == [(True, "exit.crm")]


async def test_what_an_agent_asks_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedApi() as api, way_out(api_of(api.url), agents=[reader]) as out:
        client = await out.bus.client("shop-web")
        await client.call(
            "reader.look", Look(customer="mr-private"), returns=Seen, user=out.bus.user("alice", "shop-web")
        )
    assert len(api.asked) == 1
    assert "mr-private" not in caplog.text
    assert SECRET not in caplog.text


async def test_a_body_goes_out_and_a_place_below_the_api_comes_back() -> None:
    async with ScriptedApi() as api:
        api.answer = lambda asked: answered(201, b"", ("Location", f"{api.url}/customers/acme/notes/7"))
        async with way_out(api_of(api.url), agents=[reader]) as out:
            client = await out.bus.client("shop-web")
            seen = await client.call("reader.note", Look(customer="acme"), returns=Seen)
    assert seen == Seen(status=201, text="", location="/customers/acme/notes/7")
    assert api.asked[0].body == b'{"text":"hello"}'
    assert api.asked[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ("/api/customers/acme", "/customers/acme"),
        ("/api", ""),
        ("/api/", "/"),
        ("/api2/customers", ""),
        ("/api//evil.example/", ""),
        ("/customers/acme", ""),
        ("customers/acme", ""),
    ],
)
async def test_a_place_without_a_host(said: str, given: str) -> None:
    async with (
        ScriptedApi(lambda _: answered(303, b"", ("Location", said))) as api,
        way_out(api_of(api.url)) as out,
    ):
        assert dict((await out.ask("/customers/acme")).headers).get("location", "") == given


async def test_what_the_policy_denies_never_leaves() -> None:
    def verdict(document: dict[str, Any]) -> Any:
        return deny("not_owner") if document["context"]["user"]["id"] == "carol" else allow()

    secret = FixedSecret()
    async with ScriptedApi() as api, way_out(api_of(api.url, credential=secret), engine=ScriptedEngine(verdict)) as out:
        with pytest.raises(Denied):
            await out.ask("/customers/acme", user="carol")
        await out.bus.assert_denied("exit.crm", reason="not_owner")
        assert (await out.ask("/customers/acme")).status == 200
    assert len(api.asked) == 1
    assert [one.sub for one in secret.users if one is not None] == ["alice"]


@pytest.mark.parametrize("path", ["/", "/customers", "/customers/..%2f..", "/customers/a/b", "/customers/%2e%2e"])
async def test_a_request_of_no_operation_is_none(path: str) -> None:
    async with ScriptedApi() as api, way_out(api_of(api.url)) as out:
        with pytest.raises(RemoteError) as failed:
            await out.ask(path)
    assert failed.value.code == "resource_not_found"
    assert api.connections == 0


@pytest.mark.parametrize("status", [204, 302, 400, 401, 403, 404, 429, 500, 503])
async def test_any_answer_of_the_api_is_an_answer(status: int) -> None:
    fields = [("Location", "https://elsewhere.example/"), ("Retry-After", "7"), ("Set-Cookie", "a=b")]
    said = answered(status, b"" if status == 204 else b"text", *fields)
    async with ScriptedApi(lambda _: said) as api, way_out(api_of(api.url)) as out:
        answer = await out.ask("/customers/acme")
    assert answer.status == status
    assert answer.headers == (("retry-after", "7"),)
    assert len(api.asked) == 1


async def test_nobody_sees_another_ones_cookies() -> None:
    async with (
        ScriptedApi(lambda _: answered(200, b"", ("Set-Cookie", "session=alices; Path=/"))) as api,
        way_out(api_of(api.url)) as out,
    ):
        await out.ask("/customers/acme")
        await out.ask("/customers/acme", user="bob")
    assert ["cookie" in one.headers for one in api.asked] == [False, False]
    assert [one.headers["connection"] for one in api.asked] == ["close", "close"]
    assert api.connections == 2


async def test_fields_of_an_api_are_passed_on_where_its_settings_say_so() -> None:
    said = answered(200, b"", ("X-Total", "7"), ("X-Totals", "8"), ("X-Tot", "9"), ("ETag", '"1"'))
    async with (
        ScriptedApi(lambda _: said) as api,
        way_out(api_of(api.url, headers=frozenset({"x-total", "x-tenant"}))) as out,
    ):
        answer = await out.ask("/customers/acme", headers=(("X-Tenant", "acme"),))
    assert answer.headers == (("x-total", "7"), ("etag", '"1"'))
    assert api.asked[0].headers["x-tenant"] == "acme"


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": (("Authorization", "Bearer mine"),)},
        {"headers": (("Cookie", "a=b"),)},
        {"headers": (("Host", "evil.example"),)},
        {"headers": (("X-Forwarded-For", "10.0.0.1"),)},
        {"headers": (("accept", "a"), ("Accept", "b"))},
        {"headers": (("accept", "a\r\nauthorization: mine"),)},
        {"headers": (("accept\r\nx", "a"),)},
        {"headers": (("accept", "é"),)},
        {"query": "a=b#c"},
        {"query": "a=b c"},
        {"query": "a=\r\n"},
        {"query": "é"},
    ],
)
async def test_what_an_agent_may_not_send(request_: dict[str, Any]) -> None:
    async with ScriptedApi() as api, way_out(api_of(api.url)) as out:
        with pytest.raises(RemoteError) as failed:
            await out.ask("/customers/acme", **request_)
    assert failed.value.code == "field_refused"
    assert api.connections == 0


@pytest.mark.parametrize(
    "said",
    [
        answered(200, f"you sent {SECRET}".encode(), ("ETag", "1")),
        answered(200, b"", ("ETag", SECRET), ("Link", "a")),
        answered(200, b"x" * (ANSWER_BYTES + 1)),
        answered(200, b"\x1f\x8b", ("Content-Encoding", "gzip")),
        answered(200, b"\x1f\x8b", ("Content-Encoding", "identity, gzip")),
        answered(200, b"", ("ETag", "a\tb"), ("Link", "a")),
        answered(200, b"", ("Link", "a"), ("ETag", "a\tb")),
        answered(200, b"", *[("Link", "a")] * (MOST_FIELDS + 1)),
    ],
    ids=[
        *("with the token", "with the token in a field", "too long", "compressed", "compressed in the end"),
        *("with a control character", "with a control character at the end", "with too many fields"),
    ],
)
async def test_answers_that_are_dropped(said: bytes) -> None:
    async with ScriptedApi(lambda _: said) as api, way_out(api_of(api.url)) as out:
        with pytest.raises(RemoteError) as failed:
            await out.ask("/customers/acme")
    assert failed.value.code == "answer_refused"


async def test_the_most_fields() -> None:
    async with (
        ScriptedApi(lambda _: answered(200, b"", *[("Link", "a")] * MOST_FIELDS)) as api,
        way_out(api_of(api.url)) as out,
    ):
        answer = await out.ask("/customers/acme")
    assert answer.headers == (("link", "a"),) * MOST_FIELDS


async def test_the_longest_answer() -> None:
    async with ScriptedApi(lambda _: answered(200, b"x" * ANSWER_BYTES)) as api, way_out(api_of(api.url)) as out:
        answer = await out.ask("/customers/acme")
    assert answer.body == b"x" * ANSWER_BYTES


async def test_a_token_that_is_not_accepted_is_got_anew_once() -> None:
    secret = FixedSecret("old", renewed=["new", "newer"])
    async with (
        ScriptedApi(lambda asked: answered(200 if "newer" in asked.headers["authorization"] else 401)) as api,
        way_out(api_of(api.url, credential=secret)) as out,
    ):
        assert (await out.ask("/customers/acme")).status == 401
        assert (await out.ask("/customers/acme")).status == 200
    assert [one.headers["authorization"] for one in api.asked] == [
        *("Bearer old", "Bearer new"),
        *("Bearer new", "Bearer newer"),
    ]


@pytest.mark.parametrize("status", [200, 400, 402, 403, 500])
async def test_a_token_is_got_anew_for_no_other_answer(status: int) -> None:
    secret = FixedSecret("old", renewed=["new"])
    async with ScriptedApi(lambda _: answered(status)) as api, way_out(api_of(api.url, credential=secret)) as out:
        assert (await out.ask("/customers/acme")).status == status
    assert [one.headers["authorization"] for one in api.asked] == ["Bearer old"]


async def test_an_api_that_does_not_answer() -> None:
    never = asyncio.Event()

    async def silent(_: object) -> bytes:
        await never.wait()
        return b""

    async with ScriptedApi(silent) as api, way_out(api_of(api.url, seconds=0.2)) as out:
        with pytest.raises(RemoteError) as failed:
            await out.ask("/customers/acme")
    assert failed.value.code == "api_timeout"


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nshort"])
async def test_an_api_that_breaks_off(said: bytes) -> None:
    async def breaks(_: object) -> bytes:
        raise ConnectionError if not said else asyncio.IncompleteReadError(b"", 1)

    async with ScriptedApi(lambda _: said) as api:
        if not said:
            api.answer = breaks
        async with way_out(api_of(api.url, seconds=0.5)) as out:
            with pytest.raises(RemoteError) as failed:
                await out.ask("/customers/acme")
    assert failed.value.code in {"api_unreachable", "api_timeout"}


async def test_nobody_listens() -> None:
    async with ScriptedApi() as api:
        url = api.url
    async with way_out(api_of(url)) as out:
        with pytest.raises(RemoteError) as failed:
            await out.ask("/customers/acme")
    assert failed.value.code == "api_unreachable"


async def test_a_name_that_changes_reaches_nothing_inside() -> None:
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def changing(host: str, port: int) -> list[str]:
        return answers.pop(0)

    async with ScriptedApi() as api, way_out(api_of(api.url), resolving=changing) as out:
        assert (await out.ask("/customers/acme")).status == 200
        with pytest.raises(RemoteError) as failed:
            await out.ask("/customers/acme")
    assert failed.value.code == "address_refused"
    assert len(api.asked) == 1


async def test_without_networks_an_api_inside_is_not_reached() -> None:
    async with ScriptedApi() as api, way_out(api_of(api.url, networks=())) as out:
        with pytest.raises(RemoteError) as failed:
            await out.ask("/customers/acme")
    assert failed.value.code == "address_refused"
    assert api.connections == 0


@pytest.mark.parametrize(
    ("url", "changes"),
    [
        ("http://crm.example", {}),
        ("https://user@crm.example", {}),
        ("https://crm.example?x=1", {}),
        ("https://crm.example/%2e%2e", {}),
        ("ftp://crm.example", {}),
        ("https://crm.example", {"name": "a.b"}),
        ("https://crm.example", {"headers": frozenset({"authorization"})}),
        ("https://crm.example", {"headers": frozenset({"X-Upper"})}),
        ("https://crm.example", {"headers": frozenset({"transfer-encoding"})}),
        ("https://crm.example", {"headers": frozenset({"content-length"})}),
        ("https://crm.example", {"headers": frozenset({"www-authenticate"})}),
        ("https://crm.example", {"headers": frozenset({"x-tenant", "x-key"}), "credential": ShownIn("X-Key")}),
        ("https://crm.example", {"credential": ShownIn("Accept")}),
        ("https://crm.example", {"credential": ShownIn("Host")}),
        ("https://crm.example", {"credential": ShownIn("Content-Length")}),
        ("https://crm.example", {"seconds": 0.0}),
        ("https://crm.example", {"seconds": 3_601.0}),
        ("https://crm.example", {"operations": ()}),
        ("https://crm.example", {"card": "/card.json"}),
        ("https://crm.example", {"card": "/customers/a", "tools": ("*",)}),
    ],
)
def test_an_api_that_cannot_be(url: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        api_of(url, **changes)


def test_tools_and_a_card_are_each_alone() -> None:
    assert api_of("https://crm.example", tools=("*",)).tools == ("*",)
    assert api_of("https://crm.example", card="/customers/a").card == "/customers/a"


@pytest.mark.parametrize("operations", [("GET /u/me", "GET /u/{id}"), ("GET /u/{id}", "GET /u/me")])
def test_of_several_operations_the_one_counts_that_says_more(operations: tuple[str, ...]) -> None:
    found = api_of("https://crm.example", *operations).resource(ApiRequest(method="GET", path="/u/me"))
    assert (found.properties["template"], "id" in found.properties) == ("/u/me", False)


def test_a_key_may_be_shown_in_a_field_of_its_own() -> None:
    for field in ("X-Key", "Authorization"):
        api_of("https://crm.example", credential=ShownIn(field), headers=frozenset({"x-tenant"}))


def test_the_card_of_an_agent_is_one_of_its_operations() -> None:
    for operations in (("GET /a", "POST /rpc"), ("POST /rpc", "GET /a")):
        assert api_of("https://crm.example", *operations, card="/a").passed == {"a2a-version", "a2a-extensions"}
    with pytest.raises(ConfigurationError, match="GET /customer is none of its operations"):
        api_of("https://crm.example", card="/customer")


def test_the_longest_time_of_an_api() -> None:
    assert api_of("https://crm.example", seconds=3_600.0).seconds == 3_600.0


def test_an_operation_twice() -> None:
    with pytest.raises(ConfigurationError, match="each once"):
        api_of("https://crm.example", "GET /a", "GET /a")
    with pytest.raises(ConfigurationError, match="each once"):
        api_of("https://crm.example", "GET /a/{id}", "GET /a/{name}")
    api_of("https://crm.example", "GET /a/{id}", "PUT /a/{id}", "GET /a/id", "GET /b/{id}")
