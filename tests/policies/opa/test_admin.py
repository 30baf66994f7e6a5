"""Questions of operators to a running OPA over TCP."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest
from aiohttp import web
from support.opa import OpaServer
from support.opa_answers import answering, served
from support.policies import ALLOW, bundle, document
from support.ports import held_port

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.opa import client as module
from sealbus.policies.opa.admin import OpaAdmin, OpaStatus


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real OPA that listens on a loopback port as well."""
    file = tmp_path_factory.mktemp("policy") / "bundle.tar.gz"
    write_bundle(bundle(), file)
    port = held_port()
    with OpaServer("--addr", f"127.0.0.1:{port}", "--bundle", str(file)):
        until = time.monotonic() + 60.0
        # It answers on its socket first.
        while not _listens(port):
            assert time.monotonic() < until, "opa does not listen on its port"
            time.sleep(0.02)  # there is no event for a port that nobody listens on yet
        yield f"http://127.0.0.1:{port}"


@pytest.mark.opa
async def test_status(url: str) -> None:
    status = await OpaAdmin(url).status()
    assert status.healthy
    assert status.version.count(".") == 2
    assert list(status.revisions.values()) == ["r1"]
    assert [one.rpartition("/")[2] for one in status.policies] == ["authz.rego"]


@pytest.mark.opa
async def test_a_document_is_asked(url: str) -> None:
    admin = OpaAdmin(url)
    asked = json.loads(document("yes"))
    assert await admin.query("data.sealbus.authz.decision", asked) == ALLOW
    assert await admin.query("data.sealbus.authz.nothing", asked) is None
    assert isinstance(await admin.query("data"), dict)


@pytest.mark.opa
async def test_an_ad_hoc_query(url: str) -> None:
    assert await OpaAdmin(url).query("x := input.a + 1", {"a": 2}) == [{"x": 3}]
    assert await OpaAdmin(url).query("x := input.a", {"b": 1}) is None
    assert await OpaAdmin(url).query("x := 1") == [{"x": 1}]


async def test_an_empty_input_of_an_ad_hoc_query_would_be_left_out() -> None:
    empty: tuple[object, ...] = ({}, [], 0, False, "")
    for given in empty:
        with pytest.raises(ConfigurationError, match="empty input"):
            await OpaAdmin("http://127.0.0.1:1").query("x := input", given)


@pytest.mark.opa
async def test_without_an_input_there_is_none(url: str) -> None:
    assert await OpaAdmin(url).query("data.sealbus.authz.decision") is None


@pytest.mark.opa
async def test_what_opa_refuses_or_cannot_evaluate(url: str) -> None:
    with pytest.raises(PolicyFailed, match="status 400"):
        await OpaAdmin(url).query("this is no query")
    with pytest.raises(PolicyFailed, match="status 500"):
        await OpaAdmin(url).query("data.sealbus.authz.decision", {"action": {"name": "fails"}, "context": {"kind": 1}})


async def test_nobody_listens() -> None:
    admin = OpaAdmin(f"http://127.0.0.1:{held_port()}")
    assert await admin.status() == OpaStatus(healthy=False)
    with pytest.raises(PolicyUnavailable, match="does not answer"):
        await admin.query("data")


async def test_other_answers() -> None:
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        if request.path == "/health":
            return web.Response(status=500)
        if request.path.startswith("/v1/data/sealbus"):
            return web.json_response({"provenance": {"bundles": {"a": {}, "b": "odd"}}})
        if request.path == "/v1/data/odd":
            return web.json_response({"provenance": 1})
        return web.Response(status=401)

    async with served(handler) as url:
        admin = OpaAdmin(f"{url}/", token="t")
        assert await admin.status() == OpaStatus(healthy=False, version="", revisions={"a": ""})
        with pytest.raises(PolicyUnavailable, match="status 401"):
            await admin.query("x := 1")
    assert set(seen) == {"Bearer t"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8181",
        "ftp://a",
        "http://",
        "http://a:port",
        "http://a/path",
        "http://a?x=1",
        "unix:///a",
        "http://[x",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigurationError):
        OpaAdmin(url)


@pytest.mark.parametrize(
    ("url", "shown"), [("https://opa.example.org", "opa.example.org:8181"), ("http://[::1]:1", "[::1]:1")]
)
def test_urls(url: str, shown: str) -> None:
    admin = OpaAdmin(url)
    assert admin.place == shown


@pytest.mark.parametrize("answer", [b"<html>", b'{"result":', b"\xff", b'"' + b"x" * 100 + b'"'])
async def test_what_is_no_answer_of_an_opa(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES", 100)

    async def handler(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(body=answer)

    async with served(handler) as url:
        with pytest.raises(PolicyUnavailable, match="OPA's answer is"):
            await OpaAdmin(url).query("data")


@pytest.mark.parametrize("answer", [b"", b"[]", b"1"])
async def test_an_answer_without_anything_is_nothing(answer: bytes) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(body=answer)

    async with served(handler) as url:
        assert await OpaAdmin(url).query("data") is None


async def test_a_token_goes_nowhere_else() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(status=302, headers={"Location": "/v1/elsewhere"})

    async with served(handler) as url:
        with pytest.raises(PolicyUnavailable, match="status 302"):
            await OpaAdmin(url, token="t").query("data")


async def test_a_refused_bundle_is_a_problem_of_a_healthy_opa() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/status":
            bundles = {
                "sealbus": {"active_revision": "r1", "code": "bundle_error", "message": "digest mismatch"},
                "other": {"active_revision": "r2"},
                "odd": 1,
            }
            return web.json_response({"result": {"bundles": bundles}})
        return web.json_response({"provenance": {"version": "1.22.2", "bundles": {"sealbus": {"revision": "r1"}}}})

    async with served(handler) as url:
        status = await OpaAdmin(url).status()
    assert status.healthy
    assert status.revisions == {"sealbus": "r1"}
    assert status.problems == {"sealbus": "bundle_error: digest mismatch"}


async def test_a_status_of_another_form_tells_of_no_problems() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"result": []} if request.path == "/v1/status" else {})

    async with served(handler) as url:
        assert (await OpaAdmin(url).status()).problems == {}


@pytest.mark.parametrize("answer", [{}, {"result": 1}, {"result": [1]}, {"result": "text"}, {"result": None}])
async def test_policies_of_another_form_are_none(answer: object) -> None:
    async with answering(answer) as url:
        assert (await OpaAdmin(url).status()).policies == ()


async def test_a_question_is_asked_once() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=502)

    async with served(handler) as url:
        with pytest.raises(PolicyUnavailable, match="status 502"):
            await OpaAdmin(url).query("data.a.b", {"a": 1})
    assert asked == ["/v1/data/a/b"]


async def test_an_answer_that_does_not_come_is_waited_for_no_longer() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with served(handler) as url:
        with pytest.raises(PolicyUnavailable, match="TimeoutError"):
            await OpaAdmin(url, seconds=0.05).query("data.a")
