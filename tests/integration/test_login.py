"""`sealbus login` and a certified OpenID provider that is not ours: both flows, rotating refresh tokens, and the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from support.issuer import PATIENT, TRUSTS_NOBODY, new_key
from support.oidc_provider import ES256_API, NATIVE, OidcProvider

from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.agents.login.code_flow import by_browser
from sealbus.agents.login.device_flow import by_device
from sealbus.agents.login.kept_login import Choice, LoginRequired, current_login, end_login, keep_login
from sealbus.agents.login.login_file import LoginFile
from sealbus.agents.login.provider import open_provider
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens
from sealbus.envelopes.limits import SECOND

pytestmark = pytest.mark.idp


@pytest.fixture
async def provider() -> AsyncIterator[OidcProvider]:
    async with OidcProvider({"ec-1": ("ES256", new_key("ES256"))}) as provider:
        yield provider


def client_of(provider: OidcProvider, scope: str = "openid offline_access read") -> PublicClient:
    return PublicClient(issuer=provider.issuer, client_id=NATIVE, scope=scope, resource=ES256_API)


async def on_a_device(provider: OidcProvider, client: PublicClient) -> Tokens:
    lines: list[str] = []

    async def answered(_: float) -> None:
        (page,) = (line.split()[2] for line in lines if line.startswith("or open "))
        shown = await provider.log_in(page, "alice")
        assert "Sign-in Success" in shown.text

    async with open_provider(client, tls=TRUSTS_NOBODY) as opened:
        return await by_device(opened, lines.append, pause=answered)


async def in_a_browser(provider: OidcProvider, client: PublicClient) -> Tokens:
    lines: list[str] = []
    async with open_provider(client, tls=TRUSTS_NOBODY) as opened, asyncio.TaskGroup() as group:
        assert opened.endpoints.says_issuer

        def shown(page: str) -> None:
            group.create_task(provider.log_in(page, "alice"))

        return await by_browser(opened, lines.append, shown)


@pytest.mark.parametrize("flow", [on_a_device, in_a_browser])
async def test_who_logs_in_has_a_token_that_the_edge_takes(
    flow: Callable[[OidcProvider, PublicClient], Awaitable[Tokens]], provider: OidcProvider, tmp_path: Path
) -> None:
    client = client_of(provider)
    tokens = await flow(provider, client)
    assert tokens.refresh_token is not None
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        row = Issuer(issuer=provider.issuer, audiences=frozenset({ES256_API}))
        verifier = AccessTokenVerifier([row], keys)
        token = await verifier.verify(tokens.access_token, now=time.time_ns() // 1_000)
        assert (token.subject, token.client, token.scope) == ("alice", NATIVE, ("read",))
        assert abs(token.expires - tokens.expires) <= 2 * SECOND

        file = LoginFile(tmp_path / "logins.json")
        await keep_login(file, client, tokens)
        # Nine and a half minutes later, twice at once: one of them uses the refresh token, which is good once.
        later = time.time_ns() // 1_000 + 570 * SECOND
        both = await asyncio.gather(
            *(current_login(file, Choice(), tls=TRUSTS_NOBODY, clock=lambda: later) for _ in range(2))
        )
        assert both[0] == both[1]
        renewed = both[0].tokens
        assert renewed.access_token != tokens.access_token
        assert renewed.refresh_token not in (None, tokens.refresh_token)
        assert (await verifier.verify(renewed.access_token, now=time.time_ns() // 1_000)).subject == "alice"

    ended = await end_login(file, Choice(issuer=provider.issuer), tls=TRUSTS_NOBODY)
    assert file.read() == ()
    # Its access tokens are JWTs, which it cannot revoke; the refresh token is.
    assert not ended.revoked
    await keep_login(file, client, renewed)
    with pytest.raises(LoginRequired, match="has ended"):
        await current_login(file, Choice(), tls=TRUSTS_NOBODY, clock=lambda: renewed.expires)
    assert file.read() == ()


async def test_without_the_scope_for_it_a_login_is_not_renewed(provider: OidcProvider, tmp_path: Path) -> None:
    client = client_of(provider, "openid read")
    tokens = await on_a_device(provider, client)
    assert tokens.refresh_token is None
    file = LoginFile(tmp_path / "logins.json")
    await keep_login(file, client, tokens)
    assert (await current_login(file, Choice())).tokens == tokens
    with pytest.raises(LoginRequired, match="gave nothing to renew it with"):
        await current_login(file, Choice(), clock=lambda: tokens.expires)
