"""The login that commands use: which one, refreshed once for all who wait, and gone for good when it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.envelopes import NOW
from support.issuer import TRUSTS_NOBODY
from support.scripted_provider import SECRETS, ScriptedProvider, given

from sealbus.agents.login.kept_login import Choice, LoginRequired, current_login, end_login, keep_login
from sealbus.agents.login.login_file import KeptLogin, LoginFile
from sealbus.agents.login.provider import LoginFailed, ProviderUnavailable
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens
from sealbus.agents.runtime.settings.schema import ClientTable
from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.envelopes.limits import SECOND

EXPIRES = NOW + 600 * SECOND
TOKENS = Tokens(access_token=SECRETS["access"], refresh_token=SECRETS["refresh"], scope="openid", expires=EXPIRES)
NEW = given(access_token=SECRETS["renewed"], refresh_token="the-next")


@pytest.fixture
async def idp() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as idp:
        yield idp


@pytest.fixture
def file(tmp_path: Path) -> LoginFile:
    return LoginFile(tmp_path / "logins.json")


async def keep(file: LoginFile, issuer: str, tokens: Tokens = TOKENS, **client: Any) -> KeptLogin:
    made = PublicClient(**{"issuer": issuer, "client_id": "cli", **client})
    return await keep_login(file, made, tokens, clock=lambda: NOW)


async def current(file: LoginFile, now: int, choice: Choice = Choice()) -> KeptLogin:  # noqa: B008  frozen
    return await current_login(file, choice, tls=TRUSTS_NOBODY, clock=lambda: now)


async def test_a_login_is_used_as_long_as_it_is_good(file: LoginFile, idp: ScriptedProvider) -> None:
    kept = await keep(file, idp.issuer)
    assert await current(file, EXPIRES - 60 * SECOND - 1) == kept
    assert idp.forms == []


async def test_before_it_ends_it_is_refreshed_and_the_new_tokens_kept(file: LoginFile, idp: ScriptedProvider) -> None:
    await keep(file, idp.issuer, resource="https://api.example")
    idp.says("/token", NEW)
    found = await current(file, EXPIRES - 60 * SECOND)
    assert idp.forms == [
        (
            "/token",
            {
                "grant_type": "refresh_token",
                "refresh_token": SECRETS["refresh"],
                "client_id": "cli",
                "resource": "https://api.example",
            },
        )
    ]
    assert (found.tokens.access_token, found.tokens.refresh_token) == (SECRETS["renewed"], "the-next")
    assert found.tokens.expires == EXPIRES + 540 * SECOND
    assert file.read() == (found,)


async def test_a_refresh_token_that_is_not_replaced_goes_on(file: LoginFile, idp: ScriptedProvider) -> None:
    await keep(file, idp.issuer)
    idp.says("/token", given(refresh_token=None))
    assert (await current(file, EXPIRES)).tokens.refresh_token == SECRETS["refresh"]


async def test_of_several_at_once_one_refreshes_and_all_have_what_it_got(
    file: LoginFile, idp: ScriptedProvider
) -> None:
    await keep(file, idp.issuer)
    answer = asyncio.Event()
    idp.says("/token", NEW, after=answer)
    idp.says("/token", {"error": "invalid_grant"}, 400)
    async with asyncio.TaskGroup() as group:
        commands = [group.create_task(current(LoginFile(file.path), EXPIRES)) for _ in range(3)]
        await idp.asked.wait()
        answer.set()
    assert {command.result().tokens.access_token for command in commands} == {SECRETS["renewed"]}
    assert len(idp.forms) == 1


async def test_a_login_that_the_provider_has_ended_is_forgotten(file: LoginFile, idp: ScriptedProvider) -> None:
    other = await keep(file, idp.issuer, client_id="other")
    await keep(file, idp.issuer)
    idp.says("/token", {"error": "invalid_grant"}, 400)
    with pytest.raises(LoginRequired, match="has ended: run `sealbus login`") as caught:
        await current(file, EXPIRES, Choice(client_id="cli"))
    assert caught.value.code is Code.LOGIN_REQUIRED
    assert file.read() == (other,)


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (503, b"", ProviderUnavailable),
        (400, {"error": "invalid_client"}, LoginFailed),
        (200, b"nonsense", LoginFailed),
        (200, given(token_type="DPoP"), LoginFailed),
    ],
)
async def test_a_refresh_that_fails_changes_nothing(
    status: int, answer: object, kind: type[LoginFailed], file: LoginFile, idp: ScriptedProvider
) -> None:
    kept = await keep(file, idp.issuer)
    idp.says("/token", answer, status)
    with pytest.raises(kind) as caught:
        await current(file, EXPIRES)
    assert "nobody-may-see" not in str(caught.value)
    assert file.read() == (kept,)


async def test_while_the_provider_is_away_the_old_token_is_used_to_its_end(
    file: LoginFile, idp: ScriptedProvider
) -> None:
    kept = await keep(file, idp.issuer)
    assert await current(file, EXPIRES - 1) == kept
    with pytest.raises(ProviderUnavailable):
        await current(file, EXPIRES)


async def test_without_a_refresh_token_it_ends(file: LoginFile, idp: ScriptedProvider) -> None:
    kept = await keep(file, idp.issuer, replace(TOKENS, refresh_token=None))
    assert await current(file, EXPIRES - 1) == kept
    with pytest.raises(LoginRequired, match="nothing to renew it with"):
        await current(file, EXPIRES)
    assert idp.forms == []


async def test_the_settings_choose_among_several(file: LoginFile) -> None:
    one = await keep(file, "https://one.example")
    two = await keep(file, "https://two.example")
    api = await keep(file, "https://two.example", resource="https://api.example")
    logins = file.read()
    assert Choice(issuer="https://one.example").among(logins) == one
    table = ClientTable(issuer="https://two.example", client_id="cli", resource="https://api.example")
    assert Choice.of(table).among(logins) == api
    with pytest.raises(ConfigurationError, match="several logins fit") as caught:
        Choice(issuer="https://two.example").among(logins)
    assert "https://two.example cli https://api.example" in caught.value.detail
    assert "nobody-may-see" not in str(caught.value)
    for choice in (Choice(issuer="https://on"), Choice(client_id="other"), Choice(resource="https://one.example")):
        with pytest.raises(LoginRequired, match="not logged in"):
            choice.among(logins)
    assert two in logins


async def test_a_new_login_takes_the_place_of_the_former(file: LoginFile) -> None:
    await keep(file, "https://one.example")
    kept = await keep(file, "https://one.example", replace(TOKENS, access_token="another"))
    assert file.read() == (kept,)


async def test_a_logout_removes_the_login_and_revokes_both_tokens(file: LoginFile, idp: ScriptedProvider) -> None:
    kept = await keep(file, idp.issuer)
    other = await keep(file, "https://other.example")
    for _ in range(2):
        idp.says("/revoke", b"")
    ended = await end_login(file, Choice(issuer=idp.issuer), tls=TRUSTS_NOBODY, clock=lambda: NOW)
    assert (ended.login, ended.revoked) == (kept, True)
    assert [form["token"] for form in idp.fields("/revoke")] == [SECRETS["refresh"], SECRETS["access"]]
    assert file.read() == (other,)


async def test_where_tokens_cannot_be_revoked_that_is_told(file: LoginFile) -> None:
    async with ScriptedProvider(revocation_endpoint=None) as idp:
        await keep(file, idp.issuer)
        ended = await end_login(file, Choice(), tls=TRUSTS_NOBODY, clock=lambda: NOW)
    assert (ended.revoked, file.read()) == (False, ())


async def test_a_login_is_removed_also_if_its_provider_does_not_answer(file: LoginFile, idp: ScriptedProvider) -> None:
    await keep(file, idp.issuer)
    with pytest.raises(LoginFailed, match="removed here, but its tokens are not revoked") as caught:
        await end_login(file, Choice(), tls=TRUSTS_NOBODY, clock=lambda: NOW)
    assert "nobody-may-see" not in str(caught.value)
    assert file.read() == ()
    with pytest.raises(LoginRequired):
        await end_login(file, Choice())
