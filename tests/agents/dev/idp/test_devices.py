"""The device flow (RFC 8628), over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from support.idp import Browser, LaterClock, browsing

from sealbus.agents.dev.idp.registry import CODE, DEMO_CLIENTS, DevClient

CLOCK = LaterClock()
NO_DEVICE = DevClient(client_id="no-device", redirect_uris=("http://127.0.0.1/callback",), grants=frozenset({CODE}))


@pytest.fixture
async def browser() -> AsyncGenerator[Browser, None]:
    CLOCK.ahead = 0
    async with browsing(clock=CLOCK, clients=(*DEMO_CLIENTS, NO_DEVICE)) as found:
        yield found


async def begin(browser: Browser, **more: str) -> dict[str, Any]:
    given = await browser.post("device_authorization", client_id="shop-web", **more)
    assert given.status_code == 200, given.text
    found: dict[str, Any] = given.json()
    return found


async def error(browser: Browser, device: dict[str, Any], **changed: str) -> str:
    refused = await browser.poll(device["device_code"], **changed)
    assert refused.status_code == 400
    return str(refused.json()["error"])


async def test_a_device_waits_and_is_given_its_user(browser: Browser) -> None:
    device = await begin(browser, scope="openid orders", resource="https://other.example")
    assert (device["expires_in"], device["interval"]) == (600, 5)
    assert device["verification_uri"] == f"{browser.idp.issuer}/device"
    assert re.fullmatch(r"[B-Z]{4}-[B-Z]{4}", device["user_code"])
    assert await error(browser, device) == "authorization_pending"

    page = await browser.http.get(device["verification_uri_complete"])
    assert page.status_code == 200
    assert f"<code>{device['user_code']}</code>" in page.text
    assert "form-action 'self';" in page.headers["content-security-policy"]
    done = await browser.post("device", user_code=device["user_code"], user="bob")
    assert done.status_code == 200

    given = (await browser.poll(device["device_code"])).json()
    _, claims = await browser.read(given["access_token"])
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("bob", "shop-web", "https://other.example")
    assert claims["scope"] == "openid orders"
    assert "id_token" not in given
    # The code is good once.
    assert (await browser.poll(device["device_code"])).status_code == 400


async def test_a_device_that_asks_too_often_is_slowed_down_each_time(browser: Browser) -> None:
    device = await begin(browser)
    assert await error(browser, device) == "authorization_pending"
    CLOCK.ahead += 4
    assert await error(browser, device) == "slow_down"
    # Now ten seconds, then fifteen.
    CLOCK.ahead += 9
    assert await error(browser, device) == "slow_down"
    CLOCK.ahead += 15
    assert await error(browser, device) == "authorization_pending"


async def test_a_device_whose_user_refused_is_told_once(browser: Browser) -> None:
    device = await begin(browser)
    assert (await browser.post("device", user_code=device["user_code"], deny="yes")).status_code == 200
    assert await error(browser, device) == "access_denied"
    assert await error(browser, device) == "invalid_request"


async def test_the_users_answer_is_final(browser: Browser) -> None:
    device = await begin(browser)
    await browser.post("device", user_code=device["user_code"], deny="yes")
    again = await browser.post("device", user_code=device["user_code"], user="alice")
    assert again.status_code == 400
    assert await error(browser, device) == "access_denied"


async def test_a_device_code_expires(browser: Browser) -> None:
    device = await begin(browser)
    CLOCK.ahead = 600
    assert await error(browser, device) == "expired_token"
    late = await browser.post("device", user_code=device["user_code"], user="alice")
    assert late.status_code == 400
    assert await error(browser, device) == "expired_token"
    CLOCK.ahead = 1_200
    assert await error(browser, device) == "invalid_request"


async def test_an_approval_does_not_outlive_the_code(browser: Browser) -> None:
    device = await begin(browser)
    await browser.post("device", user_code=device["user_code"], user="alice")
    CLOCK.ahead = 600
    assert await error(browser, device) == "expired_token"


async def test_a_device_code_is_its_clients_alone(browser: Browser) -> None:
    device = await begin(browser)
    await browser.post("device", user_code=device["user_code"], user="alice")
    assert await error(browser, device, client_id="sealbus-cli") == "unauthorized_client"
    assert (await browser.poll(device["device_code"])).status_code == 200


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"client_id": "nobody"}, "invalid_client"),
        ({"scope": "orders"}, "invalid_client"),
        ({"client_id": "no-device"}, "unauthorized_client"),
        ({"client_id": "sealbus-token"}, "invalid_client"),
        ({"client_id": "shop-web", "scope": "a  b"}, "invalid_scope"),
        ({"client_id": "shop-web", "resource": "x"}, "invalid_target"),
    ],
)
async def test_who_may_not_use_devices_gets_no_code(browser: Browser, fields: dict[str, str], error: str) -> None:
    refused = await browser.post("device_authorization", **fields)
    assert (refused.status_code, refused.json()["error"]) == (400, error)


async def test_a_code_can_be_typed_carelessly_but_not_wrongly(browser: Browser) -> None:
    device = await begin(browser)
    careless = device["user_code"].lower().replace("-", " ") + " "
    assert device["user_code"] in (await browser.get("device", user_code=careless)).text
    assert (await browser.get("device")).status_code == 200
    wrong = await browser.get("device", user_code="XXXX-<b>")
    assert (wrong.status_code, "<b>XXXX" in wrong.text, "-<b>" in wrong.text) == (400, False, False)


async def test_the_form_of_another_site_cannot_answer_for_the_user(browser: Browser) -> None:
    device = await begin(browser)
    refused = await browser.post(
        "device", {"Origin": "https://evil.example"}, user_code=device["user_code"], user="bob"
    )
    assert refused.status_code == 400
    assert await error(browser, device) == "authorization_pending"
