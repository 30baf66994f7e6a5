"""The authorization code flow over HTTP, as RFC 6749, RFC 7636, RFC 8707, RFC 9068 and RFC 9207 have it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import pytest
from support.idp import EDGE, Browser, LaterClock, Pkce, answer_of, browsing

from sealbus.agents.dev.idp.registry import DemoUser

CLOCK = LaterClock()


@pytest.fixture
async def browser() -> AsyncGenerator[Browser, None]:
    CLOCK.ahead = 0
    async with browsing(clock=CLOCK) as found:
        yield found


async def test_a_login_gives_an_access_token_and_an_id_token(browser: Browser) -> None:
    pkce = Pkce()
    chosen = await browser.post("authorize", request=await browser.page(browser.asked(pkce)), user="alice")
    answer = answer_of(chosen)
    assert (answer["state"], answer["iss"]) == ("s-1", browser.idp.issuer)
    given = await browser.exchange(answer["code"], pkce)
    assert given.status_code == 200, given.text
    assert given.headers["cache-control"] == "no-store"
    body = given.json()
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 900, "openid orders")
    assert set(body) == {"access_token", "token_type", "expires_in", "scope", "id_token"}

    header, claims = await browser.read(body["access_token"])
    assert (header["typ"], header["alg"], "jwk" in header) == ("at+jwt", "ES256", False)
    assert claims["exp"] - claims["iat"] == 900
    assert claims["auth_time"] <= claims["iat"]
    assert len(claims.pop("jti")) >= 20
    assert claims.pop("sid").startswith("session-")
    assert {name: claims[name] for name in claims if name not in {"exp", "iat", "auth_time"}} == {
        "iss": browser.idp.issuer,
        "aud": EDGE,
        "sub": "alice",
        "client_id": "shop-web",
        "scope": "openid orders",
        "name": "Alice Adams",
        "department": "shop",
        "region": "eu",
    }
    header, claims = await browser.read(body["id_token"])
    assert header["typ"] == "JWT"
    assert (claims["aud"], claims["sub"], claims["nonce"]) == ("shop-web", "alice", "n-1")
    assert "name" not in claims


async def test_the_issuer_says_what_its_tokens_are_worth(browser: Browser) -> None:
    _, claims = await browser.read(browser.idp.token("bob"))
    assert claims["iss"].endswith("/development-only")
    assert claims["iss"].startswith("http://127.0.0.1:")


async def test_a_token_is_for_the_resource_that_was_asked_for(browser: Browser) -> None:
    pkce = Pkce()
    given = await browser.exchange(await browser.code(pkce, resource="https://other.example"), pkce)
    _, claims = await browser.read(given.json()["access_token"])
    assert claims["aud"] == "https://other.example"
    refused = await browser.exchange(
        await browser.code(pkce, resource="https://other.example"), pkce, resource="https://third.example"
    )
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target")


OLD = DemoUser(identifier="dora", login_age=3_600)


@pytest.mark.parametrize(
    ("asked", "age"),
    [
        ({}, 3_600),
        ({"max_age": "3600"}, 3_600),
        ({"max_age": "3599"}, 0),
        ({"max_age": "0"}, 0),
        ({"prompt": "login"}, 0),
    ],
)
async def test_who_is_logged_in_for_long_logs_in_again_where_that_is_asked_for(asked: dict[str, str], age: int) -> None:
    pkce = Pkce()
    async with browsing(users=[OLD]) as browser:
        given = (await browser.exchange(await browser.code(pkce, "dora", **asked), pkce)).json()
        _, claims = await browser.read(given["access_token"])
    assert abs(claims["iat"] - claims["auth_time"] - age) <= 5


async def test_without_the_scope_openid_there_is_no_id_token(browser: Browser) -> None:
    pkce = Pkce()
    given = (await browser.exchange(await browser.code(pkce, scope="orders"), pkce)).json()
    assert "id_token" not in given
    given = (await browser.exchange(await browser.code(pkce, scope=""), pkce)).json()
    assert "scope" not in (await browser.read(given["access_token"]))[1]


async def test_a_code_is_good_once(browser: Browser) -> None:
    pkce = Pkce()
    code = await browser.code(pkce)
    assert (await browser.exchange(code, pkce)).status_code == 200
    again = await browser.exchange(code, pkce)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": ""}, "invalid_request"),
        ({"code_verifier": "a" * 43}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:7778/callback"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_grant"),
        ({"client_id": "sealbus-cli"}, "invalid_grant"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"client_id": ""}, "invalid_client"),
        ({"client_secret": "x"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "unsupported_grant_type"),
    ],
)
async def test_who_cannot_prove_the_login_gets_nothing(browser: Browser, changed: dict[str, str], error: str) -> None:
    pkce = Pkce()
    refused = await browser.exchange(await browser.code(pkce), pkce, **changed)
    assert (refused.status_code, refused.json()["error"]) == (400, error)
    assert "access_token" not in refused.text


@pytest.mark.parametrize(("code", "error"), [("made-up", "invalid_grant"), ("", "invalid_request")])
async def test_without_a_code_there_is_no_token(browser: Browser, code: str, error: str) -> None:
    refused = await browser.exchange(code, Pkce())
    assert (refused.status_code, refused.json()["error"]) == (400, error)


async def test_a_code_that_was_shown_with_a_wrong_proof_is_gone(browser: Browser) -> None:
    pkce = Pkce()
    code = await browser.code(pkce)
    assert (await browser.exchange(code, pkce, code_verifier="a" * 43)).status_code == 400
    assert (await browser.exchange(code, pkce)).json()["error"] == "invalid_grant"


async def test_a_code_expires(browser: Browser) -> None:
    pkce = Pkce()
    code = await browser.code(pkce)
    CLOCK.ahead = 60
    assert (await browser.exchange(code, pkce)).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_challenge": "", "code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"scope": "a  b"}, "invalid_scope"),
        ({"resource": "nonsense"}, "invalid_target"),
        ({"prompt": "none"}, "login_required"),
    ],
)
async def test_a_known_client_is_told_what_is_wrong(browser: Browser, changed: dict[str, str], error: str) -> None:
    answer = answer_of(await browser.get("authorize", **browser.asked(Pkce(), **changed)))
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "s-1", browser.idp.issuer)
    assert "code" not in answer


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "nobody"},
        {"client_id": ""},
        {"client_id": "sealbus-token"},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1:7777/other"},
        {"redirect_uri": ""},
        {"redirect_uri": "https://evil.example/callback", "response_type": "token"},
        {"redirect_uri": "https://evil.example/callback", "code_challenge": ""},
        {"redirect_uri": "https://evil.example/callback", "prompt": "none"},
    ],
)
async def test_nobody_is_sent_to_a_place_that_is_not_a_clients(browser: Browser, changed: dict[str, str]) -> None:
    page = await browser.get("authorize", **browser.asked(Pkce(), **changed))
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "evil" not in page.text


async def test_a_repeated_parameter_is_refused(browser: Browser) -> None:
    asked = list(browser.asked(Pkce()).items())
    page = await browser.http.get(f"{browser.idp.issuer}/authorize", params=[*asked, ("state", "s-2")])
    assert (page.status_code, "location" in page.headers) == (400, False)


async def test_the_user_can_refuse(browser: Browser) -> None:
    refused = await browser.post("authorize", request=await browser.page(browser.asked(Pkce())), deny="yes")
    assert answer_of(refused)["error"] == "access_denied"
    assert answer_of(refused)["state"] == "s-1"


async def test_the_page_is_good_once_and_not_for_ever(browser: Browser) -> None:
    key = await browser.page(browser.asked(Pkce()))
    assert (await browser.post("authorize", request=key, user="alice")).status_code == 303
    assert (await browser.post("authorize", request=key, user="alice")).status_code == 400
    assert (await browser.post("authorize", user="alice")).status_code == 400
    key = await browser.page(browser.asked(Pkce()))
    CLOCK.ahead = 600
    assert (await browser.post("authorize", request=key, user="alice")).status_code == 400


async def test_nobody_can_be_a_user_that_is_not_there(browser: Browser) -> None:
    for user in ("mallory", ""):
        page = await browser.post("authorize", request=await browser.page(browser.asked(Pkce())), user=user)
        assert page.status_code == 400


async def test_the_form_of_another_site_is_refused(browser: Browser) -> None:
    for origin, status in (("https://evil.example", 400), ("null", 400), (browser.idp.origin, 303)):
        key = await browser.page(browser.asked(Pkce()))
        page = await browser.post("authorize", {"Origin": origin}, request=key, user="alice")
        assert page.status_code == status


async def test_two_logins_are_two_sessions(browser: Browser) -> None:
    sessions = set()
    for _ in range(2):
        pkce = Pkce()
        given = (await browser.exchange(await browser.code(pkce), pkce)).json()
        sessions.add((await browser.read(given["access_token"]))[1]["sid"])
    assert len(sessions) == 2


async def test_nothing_that_is_secret_is_logged(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pkce = Pkce()
    code = await browser.code(pkce)
    given = (await browser.exchange(code, pkce)).json()
    # The browser's own library logs what it sends; what is looked at is the server.
    logged = "\n".join(record.getMessage() for record in caplog.records if "http" not in record.name)
    assert "Issue token" in logged
    for secret in (code, pkce.verifier, given["access_token"], given["id_token"]):
        assert secret not in logged
    assert pkce.challenge not in logged
