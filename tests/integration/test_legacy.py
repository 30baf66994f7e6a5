"""The services that stand for what others run let in whom they should, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from support.issuer import LoopbackIssuer, new_key
from support.legacy import API_KEY_FIELD, ApiKeys, LegacyApi, OAuth
from support.x509 import self_signed

API = "https://legacy.example/api"


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        yield http


async def test_a_token_is_taken_and_its_user_noted(http: httpx2.AsyncClient) -> None:
    async with LoopbackIssuer() as issuer, LegacyApi(OAuth(issuer.issuer, API)) as legacy:
        fields = {"Authorization": f"Bearer {issuer.token(aud=API)}", "X-Request": "1"}
        noted = await http.post(f"{legacy.url}/customers/42/notes", json={"text": "called"}, headers=fields)
        assert (noted.status_code, noted.json()) == (201, {"text": "called", "by": "alice"})
        seen = await http.get(f"{legacy.url}/customers/42?full=1", headers=fields)
        assert seen.json() == {"id": "42", "notes": [noted.json()], "seen_by": "alice"}
        assert (await http.get(f"{legacy.url}/customers/0", headers=fields)).status_code == 404
        first, second, _ = legacy.received
        assert (first.method, first.target, first.subject, first.status) == (
            "POST", "/customers/42/notes", "alice", 201,
        )  # fmt: skip
        assert first.body == b'{"text":"called"}'
        assert second.target == "/customers/42?full=1"
        assert second.header("x-request") == ["1"]
        assert fields["Authorization"] not in repr(legacy.received)


async def test_others_tokens_are_refused(http: httpx2.AsyncClient) -> None:
    async with LoopbackIssuer() as issuer, LegacyApi(OAuth(issuer.issuer, API)) as legacy:
        tokens = [
            issuer.token(),
            issuer.token(aud=API, iss="https://other.example"),
            issuer.token(aud=API, life=-600),
            issuer.token(aud=API, key=new_key()),
            issuer.token(aud=API, sub=None),
            "not-a-token",
        ]
        for token in tokens:
            said = await http.get(f"{legacy.url}/customers/42", headers={"Authorization": f"Bearer {token}"})
            assert (said.status_code, said.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
        assert (await http.get(f"{legacy.url}/customers/42")).status_code == 401
        assert {one.subject for one in legacy.received} == {""}
        assert len(legacy.received) == len(tokens) + 1


async def test_two_keys_are_good_while_they_are_changed(http: httpx2.AsyncClient) -> None:
    keys = ApiKeys({"old": "key-of-last-year", "new": "key-of-this-year"})
    async with LegacyApi(keys) as legacy:

        async def status(*shown: str) -> int:
            fields = [(API_KEY_FIELD, key) for key in shown]
            return (await http.get(f"{legacy.url}/customers/43", headers=fields)).status_code

        assert [await status(*shown) for shown in (("key-of-last-year",), ("key-of-this-year",))] == [200, 200]
        del keys.valid["old"]
        assert [await status("key-of-last-year"), await status("key-of-this-year")] == [401, 200]
        assert [await status(), await status("key-of-this-year", "key-of-this-year")] == [401, 401]
        assert [one.subject for one in legacy.received] == ["old", "new", "", "new", "", ""]


async def test_over_tls_it_is_who_its_certificate_names() -> None:
    served, trusting = self_signed()
    fields = {API_KEY_FIELD: "the-only-key"}
    async with LegacyApi(ApiKeys({"one": "the-only-key"}), tls=served) as legacy:
        assert legacy.url.startswith("https://127.0.0.1:")
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=trusting) as http:
            assert (await http.get(f"{legacy.url}/customers/42", headers=fields)).status_code == 200
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=self_signed()[1]) as http:
            with pytest.raises(httpx2.ConnectError):
                await http.get(f"{legacy.url}/customers/42", headers=fields)
        assert len(legacy.received) == 1


async def test_it_can_answer_anything(http: httpx2.AsyncClient) -> None:
    async def broken(request: Request) -> Response:
        return PlainTextResponse(f"{request.method}?", 503)

    async with LegacyApi(ApiKeys({"one": "the-only-key"})) as legacy:
        legacy.instead = broken
        said = await http.get(f"{legacy.url}/customers/42", headers={API_KEY_FIELD: "the-only-key"})
        assert (said.status_code, said.text, legacy.received[0].status) == (503, "GET?", 503)
        assert (await http.get(f"{legacy.url}/customers/42")).status_code == 401
