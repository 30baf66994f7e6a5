"""Login in a browser: PKCE, state and issuer, and that an answer to anything else never reaches the token endpoint."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from support.envelopes import NOW
from support.issuer import TRUSTS_NOBODY
from support.scripted_provider import SECRETS, ScriptedProvider, given

from sealbus.agents.login.code_flow import by_browser
from sealbus.agents.login.provider import LoginFailed, open_provider
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens

CODE = SECRETS["code"]
Said = dict[str, str]


async def log_in(
    idp: ScriptedProvider,
    answer: Callable[[Said], str | Said] = lambda asked: {"code": CODE, "state": asked["state"]},
    *,
    lines: list[str] | None = None,
    within: float = 60.0,
    **asked: Any,
) -> tuple[Tokens, Said]:
    """Log in with a browser that comes back with `answer`; return the tokens, and what the page was asked for."""
    pages: list[str] = []

    async def come_back(said: Said) -> None:
        brought = answer(said)
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            if isinstance(brought, str):
                await http.get(f"{said['redirect_uri']}?{brought}")
            else:
                await http.get(said["redirect_uri"], params=brought)

    client = PublicClient(issuer=idp.issuer, client_id="cli", **asked)
    async with open_provider(client, tls=TRUSTS_NOBODY) as provider, asyncio.TaskGroup() as browser:

        def shown(page: str) -> None:
            pages.append(page)
            browser.create_task(come_back(dict(parse_qsl(urlsplit(page).query))))

        try:
            tokens = await by_browser(
                provider, (lines if lines is not None else []).append, shown, within=within, clock=lambda: NOW
            )
        except LoginFailed as error:
            caught = error
        else:
            return tokens, dict(parse_qsl(urlsplit(pages[0]).query))
    raise caught


async def test_who_logs_in_gets_tokens() -> None:
    lines: list[str] = []
    async with ScriptedProvider(authorization_response_iss_parameter_supported=True) as idp:
        idp.says("/token", given())
        tokens, asked = await log_in(
            idp,
            lambda asked: {"code": CODE, "state": asked["state"], "iss": idp.issuer},
            lines=lines,
            scope="openid read",
            resource="https://api.example",
            acr="urn:mfa",
            max_age=0,
        )
        (form,) = idp.fields("/token")
    assert tokens.access_token == SECRETS["access"]
    verifier = form.pop("code_verifier")
    assert form == {
        "grant_type": "authorization_code",
        "code": CODE,
        "redirect_uri": asked["redirect_uri"],
        "client_id": "cli",
        "resource": "https://api.example",
    }
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert (asked.pop("code_challenge"), asked.pop("code_challenge_method")) == (digest, "S256")
    assert len(asked.pop("state")) >= 43
    assert asked.pop("redirect_uri").startswith("http://127.0.0.1:")
    assert asked == {
        "response_type": "code",
        "client_id": "cli",
        "scope": "openid read",
        "resource": "https://api.example",
        "acr_values": "urn:mfa",
        "max_age": "0",
    }
    assert not [line for line in lines if verifier in line or CODE in line or "nobody-may-see" in line]


async def test_no_log_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedProvider() as idp:
        idp.says("/token", given())
        await log_in(idp)
        (form,) = idp.fields("/token")
    assert caplog.records
    # The browser of the test itself logs where it goes, which holds the code.
    ours = [one.getMessage() for one in caplog.records if "/callback" not in one.getMessage()]
    assert not [line for line in ours if "nobody-may-see" in line or form["code_verifier"] in line]


async def test_two_logins_share_no_secret() -> None:
    async with ScriptedProvider() as idp:
        asked = []
        for _ in range(2):
            idp.says("/token", given())
            asked.append((await log_in(idp))[1])
        first, second = idp.fields("/token")
    assert first["code_verifier"] != second["code_verifier"]
    assert asked[0]["state"] != asked[1]["state"]


async def test_a_login_that_is_to_last_asks_for_consent_as_it_has_to() -> None:
    async with ScriptedProvider(authorization_endpoint=None) as idp:
        idp.more["authorization_endpoint"] = f"{idp.issuer}/authorize?tenant=1"
        idp.says("/token", given())
        _, asked = await log_in(idp, scope="openid offline_access")
    assert (asked["prompt"], asked["tenant"]) == ("consent", "1")


def state_and(**more: str) -> Callable[[Said], Said]:
    return lambda asked: {"state": asked["state"], **more}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda _: {"code": CODE}, "another login"),
        (lambda _: {"code": CODE, "state": "x"}, "another login"),
        (lambda _: {"code": CODE, "state": "é"}, "another login"),
        (lambda asked: {"code": CODE, "state": asked["state"][:-1]}, "another login"),
        (lambda asked: {"code": CODE, "state": asked["state"].swapcase()}, "another login"),
        (lambda _: {"error": "access_denied"}, "another login"),
        (state_and(code=CODE, iss="https://other.example"), "another issuer"),
        (state_and(code=CODE, iss=""), "another issuer"),
        (state_and(error="access_denied", iss="https://other.example"), "another issuer"),
        (state_and(), "without a code"),
        (state_and(code=""), "without a code"),
        (state_and(code="a b"), "without a code"),
        (lambda asked: f"state={asked['state']}&code={CODE}&code=other", "repeats a parameter"),
        (lambda asked: f"state={asked['state']}&state=x&code={CODE}", "repeats a parameter"),
        (
            lambda asked: "&".join(f"p{n}=x" for n in range(40)) + f"&state={asked['state']}&code={CODE}",
            "repeats a parameter",
        ),
        (state_and(error="access_denied", code=CODE), "access_denied; you"),
        (state_and(error=CODE, error_description=CODE), "refused: an error$"),
        (state_and(error="x\x1b[2J"), "refused: an error$"),
    ],
)
async def test_the_answer_to_anything_else_ends_it_before_the_token_endpoint(
    answer: Callable[[Said], str | Said], told: str
) -> None:
    async with ScriptedProvider() as idp:
        with pytest.raises(LoginFailed, match=told) as caught:
            await log_in(idp, answer)
        assert idp.forms == []
    assert "nobody-may-see" not in str(caught.value)


async def test_an_issuer_that_says_who_it_is_has_to() -> None:
    async with ScriptedProvider(authorization_response_iss_parameter_supported=True) as idp:
        with pytest.raises(LoginFailed, match="another issuer"):
            await log_in(idp)
        with pytest.raises(LoginFailed, match="another issuer"):
            await log_in(idp, lambda asked: {"code": CODE, "state": asked["state"], "iss": f"{idp.issuer}/"})
        assert idp.forms == []


async def test_a_code_that_is_not_taken_is_told_without_it() -> None:
    async with ScriptedProvider() as idp:
        idp.says("/token", {"error": "invalid_grant", "error_description": CODE}, 400)
        with pytest.raises(LoginFailed, match="invalid_grant; the code has expired or was used") as caught:
            await log_in(idp)
        assert len(idp.forms) == 1
    assert "nobody-may-see" not in str(caught.value)


async def test_nobody_is_waited_for_for_ever() -> None:
    async with ScriptedProvider() as idp:
        client = PublicClient(issuer=idp.issuer, client_id="cli")
        async with open_provider(client, tls=TRUSTS_NOBODY) as provider:
            with pytest.raises(LoginFailed, match="--device if the browser is on another machine"):
                await by_browser(provider, lambda _: None, lambda _: None, within=0.05)


@pytest.mark.parametrize(
    "metadata", [{"authorization_endpoint": None}, {"code_challenge_methods_supported": ["plain"]}]
)
async def test_a_provider_without_it_is_told(metadata: dict[str, Any]) -> None:
    async with ScriptedProvider(**metadata) as idp:
        with pytest.raises(LoginFailed, match="--device"):
            await log_in(idp)
