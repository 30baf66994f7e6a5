"""A browser and a client of the development IdP, as far as its flows need them."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from html import unescape
from typing import Any

import httpx2
from joserfc import jwt
from joserfc.jwk import KeySet

from sealbus.agents.dev.idp.server import DevelopmentIdp
from sealbus.bus.clocks import wall_clock
from sealbus.envelopes.limits import SECOND

__all__ = ["CALLBACK", "DEVICE", "EDGE", "Browser", "LaterClock", "Pkce", "browsing", "read_token"]

EDGE = "http://127.0.0.1:8080"
CALLBACK = "http://127.0.0.1:7777/callback"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class LaterClock:
    """The host's clock, put forward by hand."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return wall_clock() + self.ahead * SECOND


class Pkce:
    """A code verifier and its challenge."""

    def __init__(self) -> None:
        self.verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self.challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class Browser:
    """What a person and a client do with a running IdP. Redirects are never followed: they are what is looked at."""

    def __init__(self, idp: DevelopmentIdp, http: httpx2.AsyncClient) -> None:
        self.idp = idp
        self.http = http

    async def get(self, place: str, **parameters: str) -> httpx2.Response:
        return await self.http.get(f"{self.idp.issuer}/{place}", params=parameters)

    async def post(self, place: str, headers: dict[str, str] | None = None, /, **fields: str) -> httpx2.Response:
        return await self.http.post(f"{self.idp.issuer}/{place}", data=fields, headers=headers)

    def asked(self, pkce: Pkce, **changed: str) -> dict[str, str]:
        """Return a good authorization request, with some parameters changed; an empty one is left out."""
        good = {
            "response_type": "code",
            "client_id": "shop-web",
            "redirect_uri": CALLBACK,
            "scope": "openid orders",
            "state": "s-1",
            "nonce": "n-1",
            "code_challenge": pkce.challenge,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in {**good, **changed}.items() if value}

    async def page(self, asked: dict[str, str]) -> str:
        """Return what the page of users holds for the form."""
        page = await self.get("authorize", **asked)
        assert page.status_code == 200, page.text
        found = re.search(r'name="request" value="([^"]+)"', page.text)
        assert found is not None
        return unescape(found[1])

    async def code(self, pkce: Pkce, user: str = "alice", **changed: str) -> str:
        """Log in and return the authorization code."""
        chosen = await self.post("authorize", request=await self.page(self.asked(pkce, **changed)), user=user)
        assert chosen.status_code == 303, chosen.text
        return str(answer_of(chosen)["code"])

    async def exchange(self, code: str, pkce: Pkce, **changed: str) -> httpx2.Response:
        """Trade a code for tokens."""
        good = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": pkce.verifier,
            "client_id": "shop-web",
            "redirect_uri": CALLBACK,
        }
        return await self.post("token", **{name: value for name, value in {**good, **changed}.items() if value})

    async def poll(self, device_code: str, **changed: str) -> httpx2.Response:
        """Ask as a device does."""
        return await self.post(
            "token", **{"grant_type": DEVICE, "device_code": device_code, "client_id": "shop-web", **changed}
        )

    async def read(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return header and claims of a token that is signed with a published key."""
        return read_token(token, (await self.http.get(self.idp.jwks_uri)).json())


def answer_of(response: httpx2.Response) -> dict[str, str]:
    """Return the parameters that a redirect carries to the client."""
    location = httpx2.URL(response.headers["location"])
    assert str(location).startswith(CALLBACK + "?")
    return dict(location.params)


def read_token(token: str, keys: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token that one of `keys` signed."""
    found = jwt.decode(token, KeySet.import_key_set(keys), algorithms=["ES256"])
    return found.header, found.claims


@asynccontextmanager
async def browsing(**options: Any) -> AsyncGenerator[Browser, None]:
    """Start an IdP and a browser."""
    async with (
        DevelopmentIdp(audience=EDGE, **options) as idp,
        httpx2.AsyncClient(trust_env=False, timeout=60, follow_redirects=False) as http,
    ):
        yield Browser(idp, http)
