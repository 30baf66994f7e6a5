"""What attackers ask the exit for, and APIs answer with: each with its code; nothing inside is reached, no token is seen."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.egress import LOOPBACK, SECRET, FixedSecret, ScriptedApi, WayOut, answered, api_of, way_out
from support.engines import ScriptedEngine, allow, deny
from support.x509 import self_signed

from sealbus import Denied, RemoteError
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest

INSIDE_URLS = [
    "https://localhost/api",
    "https://127.0.0.1/api",
    "https://127.1/api",
    "https://2130706433/api",
    "https://0x7f.1/api",
    "https://0177.0.0.1/api",
    "https://0.0.0.0/api",
    "https://[::1]/api",
    "https://[::ffff:127.0.0.1]/api",
    "https://[::ffff:7f00:1]/api",
    "https://[64:ff9b::7f00:1]/api",
    "https://169.254.169.254/latest",
    "https://[fd00:ec2::254]/latest",
    "https://10.0.0.1/api",
]
"""Settings with a mistake, or a name that its owner points to where it likes."""

REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"method": "DELETE"}, "resource_not_found"),
    "a method of another protocol": ({"method": "CONNECT"}, "resource_not_found"),
    "a method with a line of its own": ({"method": "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"}, "resource_not_found"),
    "another path": ({"path": "/admin"}, "resource_not_found"),
    "a step up": ({"path": "/customers/../admin"}, "resource_not_found"),
    "a step up, encoded": ({"path": "/customers/%2e%2e"}, "resource_not_found"),
    "a step up, encoded twice": ({"path": "/customers/%252e%252e"}, "resource_not_found"),
    "a separator, encoded": ({"path": "/customers/a%2fadmin"}, "resource_not_found"),
    "an overlong separator": ({"path": "/customers/a%c0%afadmin"}, "resource_not_found"),
    "a whole URL": ({"path": "http://169.254.169.254/latest"}, "resource_not_found"),
    "another host": ({"path": "//evil.example/customers/42"}, "resource_not_found"),
    "a user of the URL": ({"path": "@evil.example/customers/42"}, "resource_not_found"),
    "a line of its own": ({"path": "/customers/42 HTTP/1.1\r\nHost: evil.example\r\n\r\n"}, "resource_not_found"),
    "a query in the path": ({"path": "/customers/42?admin=1"}, "resource_not_found"),
    "a fragment in the query": ({"query": "a=1#b"}, "field_refused"),
    "a line in the query": ({"query": "a=1 HTTP/1.1\r\nX: y"}, "field_refused"),
    "a token of its own": ({"headers": (("Authorization", "Bearer mine"),)}, "field_refused"),
    "a key of its own": ({"headers": (("X-API-Key", "mine"),)}, "field_refused"),
    "a cookie": ({"headers": (("Cookie", "admin=1"),)}, "field_refused"),
    "another host in a field": ({"headers": (("Host", "evil.example"),)}, "field_refused"),
    "an address of its own": ({"headers": (("X-Forwarded-For", "127.0.0.1"),)}, "field_refused"),
    "another length": ({"headers": (("Content-Length", "0"),)}, "field_refused"),
    "chunks": ({"headers": (("Transfer-Encoding", "chunked"),)}, "field_refused"),
    "an upgrade": ({"headers": (("Upgrade", "websocket"),)}, "field_refused"),
    "a method in a field": ({"headers": (("X-HTTP-Method-Override", "DELETE"),)}, "field_refused"),
    "a line in a field": ({"headers": (("Accept", "a\r\nAuthorization: mine"),)}, "field_refused"),
    "a line in a name": ({"headers": (("Accept: a\r\nX", "b"),)}, "field_refused"),
    "a field twice": ({"headers": (("Accept", "a"), ("ACCEPT", "b"))}, "field_refused"),
    "a request in the body of one that has none": ({"body": b"GET /admin HTTP/1.1\r\nX: "}, "field_refused"),
    "too many fields": ({"headers": tuple((f"x-{n}", "") for n in range(65))}, "bad_body"),
}

ANSWERS: dict[str, tuple[bytes, str]] = {
    "with the token in its body": (answered(200, b'{"you": "Bearer ' + SECRET.encode() + b'"}'), "answer_refused"),
    "with the token in a field": (answered(200, b"", ("Link", f"<x?t={SECRET}>")), "answer_refused"),
    "with the token where it points to": (answered(302, b"", ("Location", f"/api/x?t={SECRET}")), "answer_refused"),
    "too long": (answered(200, b"x" * 524_289), "answer_refused"),
    "that says it is longer than it is": (b"HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n{}", "api_timeout"),
    "compressed": (answered(200, b"\x1f\x8b\x08", ("Content-Encoding", "gzip")), "answer_refused"),
    "that is no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "api_unreachable"),
    "with a line in a field": (b"HTTP/1.1 200 X\r\nETag: a\x00b\r\nContent-Length: 0\r\n\r\n", "api_unreachable"),
}


@contextlib.asynccontextmanager
async def attacked(api: ScriptedApi, *, seconds: float = 60.0) -> AsyncIterator[WayOut]:
    async with way_out(api_of(api.url, seconds=seconds)) as out:
        yield out


async def refused(out: WayOut, **request: Any) -> str:
    said = {"path": "/customers/42", **request}
    client = await out.bus.client("shop-web")
    body = {"method": "GET", **{name: value for name, value in said.items() if value is not None}}
    with pytest.raises(RemoteError) as failed:
        await client.call(
            "exit.crm",
            body if len(said.get("headers", ())) > 64 else ApiRequest(**body),
            returns=ApiAnswer,
            user=out.bus.user("alice", "shop-web"),
        )
    return str(failed.value.code)


@pytest.mark.parametrize("name", REQUESTS)
async def test_requests(name: str) -> None:
    request, code = REQUESTS[name]
    async with ScriptedApi() as api, attacked(api) as out:
        assert await refused(out, **request) == code
        assert api.connections == 0


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers(name: str) -> None:
    said, code = ANSWERS[name]

    async def and_closes(_: object) -> bytes:
        return said

    seconds = 2.0 if code == "api_timeout" else 60.0
    async with ScriptedApi(and_closes) as api, attacked(api, seconds=seconds) as out:
        assert await refused(out) == code
        for entry in await out.bus.audit():
            assert SECRET not in repr(entry)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("GET", answered(200, b"for alice") + answered(200, b"for the next one")),
        ("HEAD", answered(200, answered(200, b"for the next one"))),
    ],
    ids=["two answers", "an answer that is the body of one without a body"],
)
async def test_what_follows_an_answer_is_nobody_elses(method: str, said: bytes) -> None:
    operations = ("GET /customers/{customer}", "HEAD /customers/{customer}")
    async with ScriptedApi(lambda _: said) as api, way_out(api_of(api.url, *operations, seconds=60.0)) as out:
        await out.ask("/customers/42", method=method)
        api.answer = lambda _: answered(200, b"for bob")
        assert (await out.ask("/customers/42", user="bob")).body == b"for bob"


async def test_an_answer_in_tiny_pieces_lets_others_have_their_turn() -> None:
    pieces, turns = 8_000, 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    said = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * pieces + b"0\r\n\r\n"

    def answer(_: object) -> bytes:
        nonlocal turns
        turns = 0
        return said

    async with ScriptedApi(answer) as api, way_out(api_of(api.url)) as out:
        working = asyncio.ensure_future(others())
        assert (await out.ask("/customers/42")).body == b"x" * pieces
        working.cancel()
    assert turns >= pieces


async def test_a_name_that_is_never_resolved_holds_up_no_other_api(monkeypatch: pytest.MonkeyPatch) -> None:
    done, real = threading.Event(), socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "slow.example":
            done.wait(60)
        return real("localhost" if host == "slow.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    slow = api_of("https://slow.example", "GET /", name="slow", seconds=0.2)
    try:
        async with ScriptedApi() as api, way_out(slow, api_of(api.url, seconds=60.0)) as out:
            # More than the loop has threads.
            asking = [out.ask("/", action="exit.slow") for _ in range(40)]
            failed = await asyncio.gather(*asking, return_exceptions=True)
            assert {one.code for one in failed if isinstance(one, RemoteError)} == {"api_timeout"}
            assert (await out.ask("/customers/42")).status == 200
            done.set()
    finally:
        done.set()


async def test_an_api_that_never_answers_holds_up_no_other_api() -> None:
    busy, done = asyncio.Event(), asyncio.Event()

    async def never(_: object) -> bytes:
        busy.set()
        await done.wait()
        return answered()

    async with ScriptedApi(never) as silent, ScriptedApi() as api:
        hanging = api_of(silent.url, "GET /", name="silent", seconds=60.0)
        async with way_out(hanging, api_of(api.url)) as out:
            # More than a worker handles at a time.
            asking = [asyncio.ensure_future(out.ask("/", action="exit.silent")) for _ in range(80)]
            await busy.wait()
            async with asyncio.timeout(60):
                assert (await out.ask("/customers/42")).status == 200
            done.set()
            assert {one.status for one in await asyncio.gather(*asking)} == {200}


@pytest.mark.parametrize("url", INSIDE_URLS)
async def test_targets_inside(url: str) -> None:
    async with way_out(api_of(url, networks=(), seconds=60.0)) as out:
        assert await refused(out) == "address_refused"


@pytest.mark.parametrize("later", ["10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_points_inside_a_moment_later(later: str) -> None:
    answers = [["127.0.0.1"], [later], ["127.0.0.1", later]]

    async def resolving(host: str, port: int) -> list[str]:
        return answers.pop(0)

    networks = LOOPBACK[:1]
    async with ScriptedApi() as api, way_out(api_of(api.url, networks=networks), resolving=resolving) as out:
        assert (await out.ask("/customers/42")).status == 200
        assert await refused(out) == "address_refused"
        assert await refused(out) == "address_refused"
        assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("certified", "host", "code"),
    [
        ("crm.example", "crm.example", None),
        ("crm.example", "other.example", "api_unreachable"),
        ("", "crm.example", "api_unreachable"),
    ],
    ids=["the API", "another one at its address", "one that has a certificate for the address only"],
)
async def test_who_is_at_the_address_shows_the_names_certificate(certified: str, host: str, code: str | None) -> None:
    served, trusted = self_signed(certified)

    async def resolving(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with ScriptedApi(tls=served) as api:
        url = api.url.replace("localhost", host)
        async with way_out(api_of(url, tls=trusted, seconds=60.0), resolving=resolving) as out:
            if code is None:
                assert (await out.ask("/customers/42")).status == 200
                assert api.asked[0].headers["host"].partition(":")[0] == host
            else:
                assert await refused(out) == code
                assert api.asked == []


@pytest.mark.parametrize(
    "where", ["http://169.254.169.254/latest", "http://localhost:1/", "//evil.example/", "/elsewhere", "file:///etc"]
)
async def test_a_redirect_is_an_answer_that_leads_nowhere(where: str) -> None:
    async with ScriptedApi(lambda _: answered(307, b"", ("Location", where))) as api, attacked(api) as out:
        answer = await out.ask("/customers/42")
        assert (answer.status, answer.headers) == (307, ())
        assert len(api.asked) == 1


async def test_who_may_call_the_exit_is_the_policys_word_for_each_request() -> None:
    def verdict(document: dict[str, Any]) -> Any:
        said = document["resource"]["properties"]
        return allow() if (said.get("method"), said.get("customer")) == ("GET", "42") else deny("not_for_you")

    async with ScriptedApi() as api, way_out(api_of(api.url), engine=ScriptedEngine(verdict)) as out:
        for request in ({"path": "/customers/43"}, {"path": "/customers/42/notes", "method": "POST"}):
            with pytest.raises(Denied):
                await out.ask(**request)
        assert api.connections == 0


@pytest.mark.parametrize(
    "operations",
    [("GET /users/{user}", "GET /users/me"), ("GET /users/me", "GET /users/{user}")],
    ids=["the general first", "the special first"],
)
@pytest.mark.parametrize("path", ["/users/me", "/users/%6de", "/users/m%65"])
async def test_what_is_denied_is_not_reached_as_a_value_of_another_operation(
    path: str, operations: tuple[str, ...]
) -> None:
    def verdict(document: dict[str, Any]) -> Any:
        denied = document["resource"]["properties"].get("template") == "/users/me"
        return deny("not_for_you") if denied else allow()

    async with (
        ScriptedApi() as api,
        way_out(api_of(api.url, *operations), engine=ScriptedEngine(verdict)) as out,
    ):
        with pytest.raises((Denied, RemoteError)) as failed:
            await out.ask(path)
        assert str(failed.value.code) == ("denied" if path == "/users/me" else "resource_not_found")
        assert api.connections == 0


async def test_one_users_token_is_never_shown_for_another() -> None:
    class OfUsers(FixedSecret):
        async def secret(self, user: Any) -> str:
            await asyncio.sleep(0)
            return f"token-of-{user.sub}"

    async with ScriptedApi() as api, way_out(api_of(api.url, credential=OfUsers())) as out:
        await asyncio.gather(*(out.ask("/customers/42", query=f"for={who}", user=who) for who in "abcdefgh" * 4))
        shown = {(one.target[-1], one.headers["authorization"]) for one in api.asked}
    assert shown == {(who, f"Bearer token-of-{who}") for who in "abcdefgh"}
