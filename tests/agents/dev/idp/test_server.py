from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import httpx2
import pytest
from support.edge import raw
from support.idp import EDGE, browsing, read_token

from sealbus.agents.dev.idp import requests
from sealbus.agents.dev.idp.access import fetch_token
from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.envelopes.errors import ConfigurationError


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "localhost", "192.168.1.2", "127.0.0.2", "example.org"],  # noqa: S104  that is the point
)
def test_it_refuses_to_listen_elsewhere_than_on_loopback(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1 or ::1 only"):
        DevelopmentIdp(audience=EDGE, host=host)


async def test_it_listens_on_loopback_only() -> None:
    async with DevelopmentIdp(audience=EDGE) as idp:
        port = int(idp.origin.rpartition(":")[2])
        # Another address of the same interface: a server on every address would answer there.
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.2", port)


async def test_discovery_says_where_everything_is() -> None:
    async with browsing() as browser:
        issuer = browser.idp.issuer
        place = f"{browser.idp.origin}/.well-known/oauth-authorization-server/development-only"
        found = [await browser.get(".well-known/openid-configuration"), await browser.http.get(place)]
        assert found[0].json() == found[1].json()
        document = found[0].json()
        assert document["issuer"] == issuer
        assert document["jwks_uri"] == browser.idp.jwks_uri
        assert document["code_challenge_methods_supported"] == ["S256"]
        assert document["response_types_supported"] == ["code"]
        assert document["token_endpoint_auth_methods_supported"] == ["none"]
        assert document["id_token_signing_alg_values_supported"] == ["ES256"]
        assert document["authorization_response_iss_parameter_supported"] is True
        assert not any("x-sealbus" in grant for grant in document["grant_types_supported"])
        for name, value in document.items():
            if name.endswith(("_endpoint", "_uri")):
                assert value.startswith(issuer + "/")
                assert (await browser.http.options(value)).status_code in (405, 404)


async def test_the_key_set_holds_one_public_key_that_is_new_at_each_start() -> None:
    kids = []
    for _ in range(2):
        async with browsing() as browser:
            (key,) = (await browser.get("jwks")).json()["keys"]
            assert set(key) == {"kty", "crv", "x", "y", "use", "alg", "kid"}
            assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
            kids.append(key["kid"])
    assert kids[0] != kids[1]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.:{port}"]
)
async def test_another_name_is_misdirected(host: str) -> None:
    async with browsing() as browser:
        port = browser.idp.origin.rpartition(":")[2]
        for place in ("jwks", "authorize", "token", "device"):
            answer = await browser.http.get(f"{browser.idp.issuer}/{place}", headers={"Host": host.format(port=port)})
            assert answer.status_code == 421
            assert answer.text.startswith("misdirected")


async def test_localhost_is_a_name_of_loopback() -> None:
    async with browsing() as browser:
        port = browser.idp.origin.rpartition(":")[2]
        answer = await browser.http.get(browser.idp.jwks_uri, headers={"Host": f"LOCALHOST:{port}"})
        assert answer.status_code == 200


async def test_no_other_site_may_read_it() -> None:
    async with browsing() as browser:
        for method in ("GET", "POST", "OPTIONS"):
            for place in ("jwks", "token", "authorize", ".well-known/openid-configuration"):
                answer = await browser.http.request(
                    method, f"{browser.idp.issuer}/{place}", headers={"Origin": "https://evil.example"}
                )
                assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_pages_are_fenced_in() -> None:
    async with browsing() as browser:
        for page in (await browser.get("device"), await browser.get("authorize")):
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert page.headers["cache-control"] == "no-store"
            assert page.headers["x-content-type-options"] == "nosniff"
            assert page.headers["referrer-policy"] == "same-origin"
            assert "server" not in page.headers
            assert "set-cookie" not in page.headers


async def test_a_body_that_is_no_small_form_is_refused() -> None:
    async with browsing() as browser:
        token = f"{browser.idp.issuer}/token"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for content, headers in (
            (b'{"grant_type":"password"}', {"Content-Type": "application/json"}),
            (b"grant_type=password", {"Content-Type": "text/plain"}),
            (b"grant_type=password", {}),
            (b"a=" + b"x" * 100_000, form),
            (b"\xff\xfe", form),
            (b"grant_type=a&grant_type=b", form),
        ):
            answer = await browser.http.post(token, content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), content[:20]


async def test_of_a_large_body_no_more_is_read_than_is_needed_to_refuse_it() -> None:
    async with browsing() as browser:
        port = int(browser.idp.origin.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"POST /development-only/token HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100000000\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        )
        writer.write(head.encode() + b"a=" + b"x" * 20_000)
        async with asyncio.timeout(60):
            assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"the development IdP at 127.0.0.1:{port} cannot be used"):
            async with DevelopmentIdp(audience=EDGE, port=port):
                raise AssertionError
    with pytest.raises(ConfigurationError, match="write host:port"):
        async with DevelopmentIdp(audience=EDGE, port=70_000):
            raise AssertionError


async def test_the_file_of_scripts_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "idp.json"
    async with DevelopmentIdp(audience=EDGE, access=file) as idp:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert idp.access.secret in file.read_text()
        assert idp.access.secret not in repr(idp.access)
    assert not file.exists()


async def test_a_head_that_two_readers_could_read_differently_is_refused() -> None:
    async with DevelopmentIdp(audience=EDGE) as idp:
        port = int(idp.origin.rpartition(":")[2])
        for fields in (
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 0\r\nContent-Length: 1\r\n",
            "X: a\nY: b\r\n",
            f"Host: 127.0.0.1:{port}\r\n",
        ):
            head = f"POST /development-only/token HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}\r\n"
            answer = await raw(port, head.encode() + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.count(b"\r\n\r\n") == 1


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_SECONDS", 0.1)
    async with DevelopmentIdp(audience=EDGE) as idp:
        port = int(idp.origin.rpartition(":")[2])
        head = (
            f"POST /development-only/token HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 10\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n"
        )
        answer = await raw(port, head.encode() + b"a=b")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"too slow" in answer


@pytest.mark.slow
async def test_a_body_that_never_ends_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with DevelopmentIdp(audience=EDGE) as idp:
        port = int(idp.origin.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"POST /development-only/token HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 10\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        )
        writer.write(head.encode() + b"a=b")
        await writer.drain()
        # Answered after it: so what was sent before has been taken up.
        await asyncio.to_thread(fetch_token, idp.access, {"user": "alice"})
    writer.close()
    assert not any(record.exc_info for record in caplog.records)


async def test_it_stops_also_while_somebody_holds_a_connection() -> None:
    async with asyncio.timeout(60):
        async with DevelopmentIdp(audience=EDGE) as idp:
            port = int(idp.origin.rpartition(":")[2])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /development-only/token HTTP/1.1\r\nHost: 127.0.0.1")
            await writer.drain()
        writer.close()
        with pytest.raises(RuntimeError, match="is not running"):
            idp.token("alice")


async def test_tokens_can_be_had_without_a_login_by_who_runs_it() -> None:
    async with browsing() as browser:
        token = browser.idp.token("dave", client="c", audience="urn:x", session="s", scope="a b", expires_in=60)
        _, claims = read_token(token, (await browser.get("jwks")).json())
        assert [claims[name] for name in ("sub", "client_id", "aud", "sid", "scope")] == [
            "dave",
            "c",
            "urn:x",
            "s",
            "a b",
        ]
        with pytest.raises(ConfigurationError, match="no demo user 'mallory'"):
            browser.idp.token("mallory")


async def test_ipv6_loopback_is_loopback() -> None:
    try:
        async with (
            DevelopmentIdp(audience=EDGE, host="::1") as idp,
            httpx2.AsyncClient(trust_env=False, timeout=60) as http,
        ):
            assert idp.issuer.startswith("http://[::1]:")
            assert (await http.get(idp.jwks_uri)).status_code == 200
    except ConfigurationError as error:
        pytest.skip(f"this machine has no IPv6: {error.detail}")
