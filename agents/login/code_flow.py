"""Login in a browser on this machine: authorization code with PKCE (RFC 7636), state, and the issuer's name (RFC 9207)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from sealbus.agents.login.loopback import Loopback
from sealbus.agents.login.provider import Answer, LoginFailed, Provider, refusal
from sealbus.agents.login.token_answer import Tokens, is_token
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock

SECONDS: Final = 300.0
"""Seconds that a person may take in the browser."""
_PARAMETERS: Final = 32
_CODE: Final = re.compile("[a-z][a-z_]{0,63}")


async def by_browser(
    provider: Provider,
    tell: Callable[[str], None],
    open_page: Callable[[str], None],
    *,
    within: float = SECONDS,
    clock: Clock = wall_clock,
) -> Tokens:
    """Log a person in on the provider's page, which `open_page` shows in a browser of this machine; return the tokens.

    Raises `LoginFailed` if the login is refused, or does not happen `within` seconds.
    """
    verifier, state = new_secrets()
    async with Loopback(provider.client.redirect_uri) as loopback:
        page = authorization_page(provider, redirect_uri=loopback.uri, state=state, verifier=verifier)
        tell(f"In a browser on this machine, open {page}")
        tell(f"Waiting for you, {within / 60:g} min at most.")
        open_page(page)
        try:
            async with asyncio.timeout(within):
                query = await loopback.answer()
        except TimeoutError as error:
            raise LoginFailed(
                "nobody has logged in: run `sealbus login` again, with --device if the browser is on another machine"
            ) from error
        return await tokens_for(provider, query, redirect_uri=loopback.uri, state=state, verifier=verifier, clock=clock)


def new_secrets() -> tuple[str, str]:
    """Return a code verifier (RFC 7636) and a state for one login."""
    return secrets.token_urlsafe(48), secrets.token_urlsafe(32)


def authorization_page(provider: Provider, *, redirect_uri: str, state: str, verifier: str) -> str:
    """Return the address of the provider's page that asks a person to log in.

    Raises `LoginFailed` for a provider without such a page, or without PKCE by S256.
    """
    client, endpoints = provider.client, provider.endpoints
    if endpoints.authorization is None or not endpoints.s256:
        raise LoginFailed(f"{client.issuer} has no login in a browser with PKCE by S256: try `sealbus login --device`")
    query = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
        # Without it a provider must ignore the scope (OpenID Connect Core section 11).
        **({"prompt": "consent"} if "offline_access" in client.scope.split() else {}),
        **client.parameters,
    }
    return f"{endpoints.authorization}{'&' if '?' in endpoints.authorization else '?'}{urlencode(query)}"


async def tokens_for(
    provider: Provider, query: str, *, redirect_uri: str, state: str, verifier: str, clock: Clock = wall_clock
) -> Tokens:
    """Return the tokens for the answer in `query`, which a browser brought to `redirect_uri`.

    Raises `LoginFailed` unless it answers the request with `state`, and comes from the provider's issuer (RFC 9207).
    """
    client, endpoints = provider.client, provider.endpoints
    code = _code(query, state=state, issuer=client.issuer, says_issuer=endpoints.says_issuer)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
        **client.target,
    }
    answer = await provider.ask(endpoints.token, form)
    if answer.error:
        raise refusal(answer, client.issuer)
    return Tokens.parse(answer.members, scope=client.scope, now=clock())


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _code(query: str, *, state: str, issuer: str, says_issuer: bool) -> str:
    """Return the code in the browser's answer; raise `LoginFailed` unless it is the answer to this login."""
    answer = _parameters(query)
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        raise LoginFailed("the browser brought the answer to another login (state): run `sealbus login` again")
    # The token endpoint of this issuer must not see the answer of another issuer (RFC 9207 section 2.4).
    if answer.get("iss", None if says_issuer else issuer) != issuer:
        raise LoginFailed("the browser brought the answer of another issuer (iss): run `sealbus login` again")
    if "error" in answer:
        error = answer["error"]
        raise refusal(Answer(error if _CODE.fullmatch(error) else "an error", {}), issuer)
    code = answer.get("code")
    if not is_token(code):
        raise LoginFailed("the browser brought an answer without a code: run `sealbus login` again")
    return code


def _parameters(query: str) -> Mapping[str, str]:
    pairs: list[tuple[str, str]] | None
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_PARAMETERS)
    except ValueError:
        pairs = None
    if pairs is None or len(dict(pairs)) != len(pairs):
        raise LoginFailed("the browser brought an answer that repeats a parameter: run `sealbus login` again")
    return dict(pairs)
