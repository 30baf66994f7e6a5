"""A login in a browser, seen from the provider's side: what is asked for, and that nothing of it is believed too early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.requests import Request
from support.scripted_provider import SECRETS, ScriptedProvider, given

from sealbus.agents.console.pages import login as module
from sealbus.agents.console.pages.login import MARK, RENEW_EVERY, BrowserLogin, check_own_page
from sealbus.agents.console.pages.sessions import Session, Sessions
from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.login.provider import LoginFailed, open_provider
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens
from sealbus.envelopes.limits import SECOND

NOW = 1_800_000_000_000_000


def request(query: str = "", cookie: str = "", *, mark: bool = False) -> Request:
    headers = [(b"cookie", cookie.encode())] if cookie else []
    if mark:
        headers.append((MARK.encode(), b"1"))
    return Request({
        "type": "http", "method": "GET", "headers": headers, "query_string": query.encode(), "path": "/login",
        "server": ("console.example", 443), "scheme": "https",
    })  # fmt: skip


def login_at(issuer: str, origin: str = "https://console.example") -> BrowserLogin:
    client = PublicClient(issuer=issuer, client_id="sealbus-cli", scope="openid")
    return BrowserLogin(client, Sessions(), origin=origin, clock=lambda: NOW)


async def test_the_provider_is_asked_with_pkce_and_for_the_login_that_is_needed() -> None:
    async with DevelopmentIdp(audience="http://127.0.0.1:1") as idp:
        login = login_at(idp.issuer)
        answer = await login.begin(request("to=/approvals&acr=urn:example:silver&max_age=300"))
        asked = parse_qs(urlsplit(answer.headers["location"]).query)
        assert asked["redirect_uri"] == ["https://console.example/callback"]
        assert asked["code_challenge_method"] == ["S256"]
        assert (asked["acr_values"], asked["max_age"]) == (["urn:example:silver"], ["300"])
        [said] = answer.headers.getlist("set-cookie")
        assert said.startswith("__Host-sealbus_login=")
        assert said.endswith("HttpOnly; SameSite=Lax; Secure; Max-Age=600")
        state, value = asked["state"][0], said.partition("=")[2].partition(";")[0]
        # The state alone is somebody else's browser; the cookie alone is another answer.
        for cookie, query in (("", f"state={state}&code=x"), (f"__Host-sealbus_login={value}", "state=other&code=x")):
            with pytest.raises(EdgeError):
                await login.end(request(query, cookie))
        # A stranger's answer ends nobody's login: this one goes on.
        with pytest.raises(LoginFailed):
            await login.end(request(f"state={state}&code=forged&iss={idp.issuer}", f"__Host-sealbus_login={value}"))


async def test_however_many_strangers_begin_a_login_another_goes_on(
    idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = login_at(idp.issuer)
    begun = await login.begin(request("to=/tasks"))
    client = PublicClient(issuer=idp.issuer, client_id="sealbus-cli", scope="openid")
    async with open_provider(client) as provider:
        with monkeypatch.context() as patched:
            # Asked for its document each time, it would take most of the test's time.
            patched.setattr(module, "open_provider", lambda *_, **__: nullcontext(provider))
            for _ in range(1_001):
                await login.begin(request("to=/"))
    idp.says("/token", given(access_token=SECRETS["access"]))
    state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
    value = begun.headers["set-cookie"].partition(";")[0]
    ended = await login.end(request(f"state={state}&code=x&iss={idp.issuer}", value))
    assert 'url=/tasks"' in bytes(ended.body).decode()


@pytest.mark.parametrize("query", ["to=//x", "to=/%0d%0aset-cookie:x", "acr=%22", "max_age=-1", "max_age=1e9"])
async def test_what_is_asked_of_a_login_is_checked(query: str) -> None:
    with pytest.raises(EdgeError):
        await login_at("http://127.0.0.1:9/x").begin(request(query))


async def test_a_session_is_only_that_of_its_cookie() -> None:
    login = login_at("http://127.0.0.1:9/x")
    for cookie in ("", "sealbus_console=x", "__Host-sealbus_console=x", "__Host-sealbus_console="):
        with pytest.raises(EdgeError) as refused:
            await login.session(request(cookie=cookie))
        assert refused.value.status == 401
    # Leaving without a session leaves nothing behind.
    assert (await login.leave(request(mark=True))).status_code == 200
    with pytest.raises(EdgeError) as refused:
        await login.leave(request())
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({MARK: "1"}, True),
        ({MARK: "1", "sec-fetch-site": "same-origin"}, True),
        ({}, False),
        ({f"{MARK}s": "1"}, False),
        ({MARK[:-1]: "1"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        *(
            ({MARK: "1", "sec-fetch-site": site}, False)
            for site in ("cross-site", "same-site", "none", "same", "Same-Origin")
        ),
        ({MARK: "1", "sec-fetch-site": "same-origins"}, False),
    ],
    ids=str,
)
def test_a_change_comes_from_a_page_of_the_console(fields: dict[str, str], good: bool) -> None:
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    asked = Request({"type": "http", "method": "POST", "path": "/logout", "query_string": b"", "headers": headers})
    if good:
        check_own_page(asked)
        return
    with pytest.raises(EdgeError) as refused:
        check_own_page(asked)
    assert refused.value.status == 403


class Looking:
    """Somebody whose token ends in half a minute, at a provider that says what a test says."""

    def __init__(self, idp: ScriptedProvider, refresh: str | None = SECRETS["refresh"]) -> None:
        self.now = NOW
        tokens = Tokens(
            access_token=SECRETS["access"], refresh_token=refresh, scope="openid", expires=NOW + 30 * SECOND
        )
        sessions = Sessions()
        self.cookie = f"__Host-sealbus_console={sessions.begin(Session(tokens))}"
        client = PublicClient(issuer=idp.issuer, client_id="sealbus-console", scope="openid")
        self.login = BrowserLogin(client, sessions, origin="https://console.example", clock=lambda: self.now)

    async def token(self) -> str:
        return (await self.login.session(request(cookie=self.cookie))).tokens.access_token


@pytest.fixture
async def idp() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as running:
        yield running


async def test_a_session_is_renewed_once_before_its_token_ends(idp: ScriptedProvider) -> None:
    looking = Looking(idp)
    idp.says("/token", given(access_token=SECRETS["renewed"], refresh_token="the-next"))
    assert set(await asyncio.gather(*[looking.token() for _ in range(5)])) == {SECRETS["renewed"]}
    assert [one["refresh_token"] for one in idp.fields("/token")] == [SECRETS["refresh"]]
    # A day later nobody has looked: the provider says whether the login goes on.
    looking.now += 86_400 * SECOND
    idp.says("/token", given())
    assert await looking.token() == SECRETS["access"]
    assert idp.fields("/token")[-1]["refresh_token"] == "the-next"


async def test_a_login_that_its_provider_has_ended_ends_here(idp: ScriptedProvider) -> None:
    looking = Looking(idp)
    idp.says("/token", {"error": "invalid_grant"}, 400)
    for _ in range(2):
        with pytest.raises(EdgeError, match="log"):
            await looking.token()
        # Also once it may be tried again: what the provider has ended does not begin anew.
        looking.now += RENEW_EVERY
    assert len(idp.fields("/token")) == 1


@pytest.mark.parametrize(
    ("expires", "ended"), [(NOW + 30 * SECOND, True), (NOW + 3_600 * SECOND, False)], ids=["ended", "not due"]
)
async def test_a_session_that_has_ended_or_is_not_due_is_not_renewed(
    idp: ScriptedProvider, expires: int, ended: bool
) -> None:
    """Also for somebody who holds it while it is shown: a session that ended for another reason begins no new one."""
    tokens = Tokens(access_token=SECRETS["access"], refresh_token=SECRETS["refresh"], scope="openid", expires=expires)
    session = Session(tokens, ended=ended)
    with pytest.raises(EdgeError) if ended else nullcontext():
        await login_at(idp.issuer).renew(session)
    assert idp.fields("/token") == []
    assert session.tokens is tokens


async def test_a_provider_that_is_away_ends_nothing_before_the_token_ends(idp: ScriptedProvider) -> None:
    looking = Looking(idp)
    for seconds in (0, 1, 6):
        looking.now = NOW + seconds * SECOND
        assert await looking.token() == SECRETS["access"]
    # It is not asked for each of the pages' requests.
    assert len(idp.fields("/token")) == 2
    looking.now = NOW + 31 * SECOND
    with pytest.raises(EdgeError, match="has ended"):
        await looking.token()
    looking.now += 10 * SECOND
    idp.says("/token", given(access_token=SECRETS["renewed"]))
    assert await looking.token() == SECRETS["renewed"]


async def test_without_a_refresh_token_it_ends_with_its_token(idp: ScriptedProvider) -> None:
    looking = Looking(idp, None)
    assert await looking.token() == SECRETS["access"]
    looking.now += 31 * SECOND
    with pytest.raises(EdgeError):
        await looking.token()
    assert idp.forms == []


async def test_who_leaves_takes_all_tokens_along(idp: ScriptedProvider) -> None:
    looking = Looking(idp)
    for _ in range(2):
        idp.says("/revoke", b"")
    await looking.login.leave(request(cookie=looking.cookie, mark=True))
    assert [one["token"] for one in idp.fields("/revoke")] == [SECRETS["refresh"], SECRETS["access"]]
    with pytest.raises(EdgeError):
        await looking.token()
