"""The grant of scripts, over HTTP; the code flow is in test_oauth.py."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator

import pytest
from support.idp import EDGE, Browser, LaterClock, browsing

from sealbus.agents.dev.idp.registry import SCRIPTS

CLOCK = LaterClock()


@pytest.fixture
async def browser() -> AsyncGenerator[Browser, None]:
    CLOCK.ahead = 0
    async with browsing(clock=CLOCK) as found:
        yield found


def basic(secret: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'sealbus-token:{secret}'.encode()).decode()}"}


async def test_whoever_holds_the_secret_is_given_any_users_token(browser: Browser) -> None:
    given = await browser.post(
        "token",
        basic(browser.idp.access.secret),
        grant_type=SCRIPTS,
        user="carol",
        client="batch",
        session="s-9",
        scope="orders",
        expires_in="-5",
    )
    assert given.status_code == 200, given.text
    _, claims = await browser.read(given.json()["access_token"])
    assert (claims["sub"], claims["client_id"], claims["sid"], claims["scope"]) == ("carol", "batch", "s-9", "orders")
    assert claims["aud"] == EDGE
    # It was valid once, for a second, and is no longer.
    assert claims["exp"] - claims["iat"] == 1
    assert claims["exp"] * 1_000_000 < CLOCK()
    assert claims["auth_time"] <= claims["iat"]


@pytest.mark.parametrize("secret", ["", "wrong"])
async def test_nobody_else_is(browser: Browser, secret: str) -> None:
    refused = await browser.post("token", basic(secret), grant_type=SCRIPTS, user="alice")
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert refused.headers["www-authenticate"].startswith("Basic")


async def test_a_public_client_cannot_use_the_grant_of_scripts(browser: Browser) -> None:
    for fields in ({"client_id": "shop-web"}, {"client_id": "sealbus-token"}, {}):
        refused = await browser.post("token", grant_type=SCRIPTS, user="alice", **fields)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


async def test_the_secret_opens_no_other_grant(browser: Browser) -> None:
    refused = await browser.post(
        "token",
        basic(browser.idp.access.secret),
        grant_type="urn:ietf:params:oauth:grant-type:device_code",
        device_code="any",
    )
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_client")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"user": "mallory"}, "invalid_request"),
        ({}, "invalid_request"),
        ({"user": "alice", "client": "a b"}, "invalid_request"),
        ({"user": "alice", "session": "x" * 129}, "invalid_request"),
        ({"user": "alice", "scope": "a  b"}, "invalid_request"),
        ({"user": "alice", "expires_in": "soon"}, "invalid_request"),
        ({"user": "alice", "expires_in": "100000"}, "invalid_request"),
        ({"user": "alice", "resource": "x"}, "invalid_target"),
    ],
)
async def test_what_makes_no_token_is_told(browser: Browser, fields: dict[str, str], error: str) -> None:
    refused = await browser.post("token", basic(browser.idp.access.secret), grant_type=SCRIPTS, **fields)
    assert (refused.status_code, refused.json()["error"]) == (400, error)
