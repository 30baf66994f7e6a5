"""The provider: whose metadata is believed, where its endpoints may be, and how its answers are bounded and told."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any

import pytest
from support.issuer import TRUSTS_NOBODY
from support.scripted_provider import ENDLESS, SECRETS, ScriptedProvider, given

from sealbus.agents.login import provider as module
from sealbus.agents.login.provider import Endpoints, LoginFailed, ProviderUnavailable, open_provider
from sealbus.agents.login.public_client import PublicClient

ISSUER = "https://idp.example"
METADATA: dict[str, Any] = {
    "token_endpoint": "https://idp.example/token",
    "authorization_endpoint": "https://login.example/authorize?tenant=1",
    "authorization_response_iss_parameter_supported": True,
    "code_challenge_methods_supported": ["plain", "S256"],
}


def client_at(issuer: str) -> PublicClient:
    return PublicClient(issuer=issuer, client_id="cli", resource="https://api.example")


def everything_of(error: BaseException) -> str:
    """Return all that a log or a debugger could show of an error and what it is chained to."""
    found = ""
    seen: BaseException | None = error
    while seen is not None:
        found += "".join(traceback.format_exception(seen)) + repr(vars(seen))
        request = getattr(seen, "request", None)
        found += repr(getattr(request, "content", b""))
        seen = seen.__cause__ or seen.__context__
    return found


def test_endpoints_are_read() -> None:
    found = Endpoints.parse(METADATA, ISSUER)
    assert (found.token, found.authorization) == (METADATA["token_endpoint"], METADATA["authorization_endpoint"])
    assert (found.device_authorization, found.revocation, found.says_issuer, found.s256) == (None, None, True, True)
    silent = Endpoints.parse({"token_endpoint": METADATA["token_endpoint"]}, ISSUER)
    assert (silent.says_issuer, silent.s256) == (False, True)


@pytest.mark.parametrize("methods", [[], ["plain"], "S256", {"S256": 1}])
def test_other_kinds_of_pkce_are_not_enough(methods: Any) -> None:
    assert not Endpoints.parse({**METADATA, "code_challenge_methods_supported": methods}, ISSUER).s256


@pytest.mark.parametrize("name", ["token", "authorization", "device_authorization", "revocation"])
@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example/x",
        "http://127.0.0.1/x",
        "https://user@idp.example/x",
        "https://idp.example/x#y",
        "https://idp.example\\@evil.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "",
        1,
        ["https://idp.example/x"],
    ],
)
def test_an_endpoint_elsewhere_than_over_https_is_refused(name: str, url: Any) -> None:
    with pytest.raises(LoginFailed, match=f"{name}_endpoint"):
        Endpoints.parse({**METADATA, f"{name}_endpoint": url}, ISSUER)


def test_only_an_issuer_on_loopback_may_be_plain() -> None:
    plain = {"token_endpoint": "http://127.0.0.1:1/token"}
    assert Endpoints.parse(plain, "http://127.0.0.1:1").token == plain["token_endpoint"]
    with pytest.raises(LoginFailed, match="token_endpoint"):
        Endpoints.parse({"token_endpoint": "http://idp.example/token"}, "http://127.0.0.1:1")
    with pytest.raises(LoginFailed, match="no token_endpoint"):
        Endpoints.parse({}, ISSUER)


@pytest.mark.parametrize("issuer", ["https://other.example", "http://127.0.0.1", None, 1])
async def test_metadata_of_another_issuer_is_not_believed(issuer: object) -> None:
    async with ScriptedProvider(issuer=issuer) as idp:
        with pytest.raises(ProviderUnavailable, match="of another issuer"):
            async with open_provider(client_at(idp.issuer), tls=TRUSTS_NOBODY):
                raise AssertionError


async def test_a_slash_makes_another_issuer() -> None:
    async with ScriptedProvider() as idp:
        with pytest.raises(ProviderUnavailable, match="of another issuer"):
            async with open_provider(client_at(f"{idp.issuer}/"), tls=TRUSTS_NOBODY):
                raise AssertionError


async def ask(idp: ScriptedProvider) -> object:
    async with open_provider(client_at(idp.issuer), tls=TRUSTS_NOBODY) as provider:
        return await provider.ask(provider.endpoints.token, {"refresh_token": SECRETS["refresh"]})


async def test_a_form_is_sent_as_the_client() -> None:
    async with ScriptedProvider() as idp:
        idp.says("/token", given())
        answer = await ask(idp)
        assert idp.fields("/token") == [{"refresh_token": SECRETS["refresh"], "client_id": "cli"}]
        assert "nobody-may-see" not in repr(answer)


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, {"error": "invalid_grant", "error_description": SECRETS["refresh"]}, "invalid_grant"),
        (428, {"error": "authorization_pending"}, "authorization_pending"),
        (429, {"error": "slow_down"}, "slow_down"),
        (200, {"error": "access_denied"}, "access_denied"),
        (400, {"error": SECRETS["refresh"]}, "status 400"),
        (400, {"error": "x\x1b[2J"}, "status 400"),
        (200, {"error": 1, **given()}, "status 200"),
        (401, b"<html>", "status 401"),
        (307, b"", "status 307"),
        (204, b"", "status 204"),
    ],
)
async def test_a_refusal_is_told_by_its_code_alone(status: int, answer: object, error: str) -> None:
    async with ScriptedProvider() as idp:
        idp.says("/token", answer, status)
        found = await ask(idp)
        assert found == module.Answer(error, {})
        # No redirect is followed with a form.
        assert [path for path, _ in idp.forms] == ["/token"]
        assert "nobody-may-see" not in str(module.refusal(found, idp.issuer))


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, b""),
        (503, {"x": 1}),
        (429, b""),
        (400, {"error": "temporarily_unavailable"}),
        (200, ENDLESS),
        (400, ENDLESS),
    ],
)
async def test_who_cannot_answer_now_may_be_asked_again(status: int, answer: object) -> None:
    async with ScriptedProvider() as idp:
        idp.says("/token", answer, status)
        with pytest.raises(ProviderUnavailable) as caught:
            await ask(idp)
        assert "nobody-may-see" not in everything_of(caught.value)


@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"[]", b"\xff", b'{"a":1,"a":1}', b"[" * 9_000, b'{"access_token": "' + SECRETS["access"].encode()],
)
async def test_nonsense_is_no_answer(answer: bytes) -> None:
    async with ScriptedProvider() as idp:
        idp.says("/token", answer)
        with pytest.raises(LoginFailed, match="JSON object") as caught:
            await ask(idp)
        assert "nobody-may-see" not in everything_of(caught.value)


async def test_a_provider_that_never_answers_is_waited_for_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedProvider() as idp:
        idp.says("/token", given(), after=asyncio.Event())
        async with open_provider(client_at(idp.issuer), tls=TRUSTS_NOBODY) as provider:
            monkeypatch.setattr(module, "SECONDS", 0.05)
            with pytest.raises(ProviderUnavailable, match="no answer in"):
                await provider.ask(provider.endpoints.token, {})


async def test_one_that_is_gone_keeps_the_form_out_of_the_error() -> None:
    async with ScriptedProvider() as idp, open_provider(client_at(idp.issuer), tls=TRUSTS_NOBODY) as provider:
        await idp.__aexit__(None, None, None)
        with pytest.raises(ProviderUnavailable, match="ConnectError") as caught:
            await provider.ask(provider.endpoints.token, {"refresh_token": SECRETS["refresh"]})
        assert "nobody-may-see" not in everything_of(caught.value)
        assert caught.value.__context__ is None


async def revoke(idp: ScriptedProvider) -> bool:
    async with open_provider(client_at(idp.issuer), tls=TRUSTS_NOBODY) as provider:
        return await provider.revoke(SECRETS["refresh"], "refresh_token")


async def test_a_token_is_revoked_by_rfc_7009() -> None:
    async with ScriptedProvider() as idp:
        idp.says("/revoke", b"whatever")
        assert await revoke(idp)
        said = {"token": SECRETS["refresh"], "token_type_hint": "refresh_token", "client_id": "cli"}
        assert idp.forms == [("/revoke", said)]


async def test_where_that_is_not_possible_is_told() -> None:
    async with ScriptedProvider(revocation_endpoint=None) as idp:
        assert not await revoke(idp)
        assert idp.forms == []
    async with ScriptedProvider() as idp:
        idp.says("/revoke", {"error": "unsupported_token_type"}, 400)
        assert not await revoke(idp)


@pytest.mark.parametrize(("status", "kind"), [(400, LoginFailed), (401, LoginFailed), (503, ProviderUnavailable)])
async def test_a_refusal_to_revoke_is_an_error(status: int, kind: type[LoginFailed]) -> None:
    async with ScriptedProvider() as idp:
        idp.says("/revoke", {"error": "invalid_client"} if status == 401 else b"", status)
        with pytest.raises(kind) as caught:
            await revoke(idp)
        assert type(caught.value) is kind
