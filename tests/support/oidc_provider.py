"""A certified OpenID provider for tests: npm's oidc-provider, installed by `make tools`, as a process on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey, Key
from support.dpop import Holder
from support.issuer import public_jwk
from support.x509 import ThrowawayCa

__all__ = [
    "BRIEF_API",
    "CLAIMS",
    "CLIENT",
    "EDGE",
    "ES256_API",
    "EXIT",
    "LEGACY_API",
    "MACHINE",
    "NATIVE",
    "OPAQUE_API",
    "RS256_API",
    "OidcProvider",
    "require_oidc_provider",
]

_ROOT = Path(__file__).parents[2]
_SCRIPT = _ROOT / "deploy" / "tools" / "oidc-provider" / "provider.mjs"
_INSTALLED = _ROOT / ".tools" / "oidc-provider"
_READY_SECONDS = 60.0

ES256_API = "https://edge.example/es256"
RS256_API = "https://edge.example/rs256"
OPAQUE_API = "https://edge.example/opaque"
BRIEF_API = "https://edge.example/brief"
"""Its tokens live for a second."""
LEGACY_API = "https://legacy.example/api"
CLIENT = {"id": "shop-web", "secret": "for-tests-only", "redirect_uri": "https://shop.example/callback"}
EDGE = "the-edge"
EXIT = "the-exit"
NATIVE = "sealbus-cli"
MACHINE = "the-machine"
CLAIMS = {"department": "tools", "groups": ["a", "b"], "nested": {"no": "context holds it"}}
"""What tokens of users hold besides."""


def require_oidc_provider() -> tuple[str, Path]:
    """Return node and the folder of the provider; without them skip the test, or fail it in CI."""
    node = shutil.which("node")
    missing = "node" if node is None else "oidc-provider"
    if node is not None and (_INSTALLED / "node_modules" / "oidc-provider" / "package.json").exists():
        return node, _INSTALLED
    if os.environ.get("CI"):
        pytest.fail(f"there is no {missing}: `make tools` installs the provider")
    pytest.skip(f"there is no {missing}: `make tools` installs the provider")


class OidcProvider:
    """The provider with `keys`, private keys by `kid`, started by `async with`. `port` 0 is a free one.

    `trusted` are the public JWKs of those whose assertions about users it believes, by their issuer. At `logout_uri` it
    reports that a session of its client has ended. With `authority` it speaks TLS under a certificate of it, and knows the
    client `MACHINE` by one, to which it binds its tokens (RFC 8705).
    """

    def __init__(
        self,
        keys: dict[str, tuple[str, Key]],
        *,
        port: int = 0,
        trusted: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        logout_uri: str | None = None,
        authority: ThrowawayCa | None = None,
    ) -> None:
        self._node, self._folder = require_oidc_provider()
        self._keys = [
            {**key.as_dict(private=True), "kid": kid, "alg": alg, "use": "sig"} for kid, (alg, key) in keys.items()
        ]
        self.edge_key = ECKey.generate_key("P-256", private=True)
        """Of the client that asks about tokens."""
        self.exit_key = ECKey.generate_key("P-256", private=True)
        """Of the client that gets tokens for others and for itself."""
        self._trusted = {issuer: list(map(dict, jwks)) for issuer, jwks in (trusted or {}).items()}
        self._port = port
        self._logout_uri = logout_uri
        self._authority = authority
        self._browsers: dict[str, httpx2.Cookies] = {}
        """The cookies of each user's last login."""
        self._process: Process | None = None
        self.issuer = ""

    @property
    def port(self) -> int:
        """The port it listens on, for another one that takes its place."""
        found = urlsplit(self.issuer).port
        assert found is not None
        return found

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            self._node, _SCRIPT, self._folder, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                assert self._process.stdin is not None
                assert self._process.stdout is not None
                self._process.stdin.write(json.dumps(self._settings()).encode() + b"\n")
                await self._process.stdin.drain()
                # It speaks to operators on the same stream.
                while not (line := await self._process.stdout.readline()).startswith(b'{"issuer"'):
                    assert line, "the provider ended at once"
                self.issuer = json.loads(line)["issuer"]
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    def _settings(self) -> dict[str, Any]:
        return {
            "port": self._port,
            "keys": self._keys,
            "resources": {
                ES256_API: {"alg": "ES256"}, RS256_API: {"alg": "RS256"}, OPAQUE_API: {}, LEGACY_API: {"alg": "ES256"},
                BRIEF_API: {"alg": "ES256", "seconds": 1},
            },
            "client": {**CLIENT, "logout_uri": self._logout_uri},
            "claims": CLAIMS,
            "edge": {"id": EDGE, "keys": [public_jwk(self.edge_key, self.edge_key.thumbprint())]},
            "native": NATIVE,
            "exit": {"id": EXIT, "keys": [public_jwk(self.exit_key, self.exit_key.thumbprint())]},
            "trusted": self._trusted,
            "tls": self._tls(),
            "machine": {"id": MACHINE, "subject": f"O={MACHINE}"},
        }  # fmt: skip

    def _tls(self) -> dict[str, str] | None:
        if self._authority is None:
            return None
        own = self._authority.issue("spiffe://example.org/idp", addresses=["127.0.0.1"])
        pems = {"key": own.key_pem, "certificate": own.cert_pem, "authority": self._authority.cert_pem}
        return {name: pem.decode() for name, pem in pems.items()}

    async def client_token(self, resource: str, scope: str = "read", *, holder: Holder | None = None) -> str:
        """Return an access token of the client itself (client credentials), bound to the key of `holder` if there is one."""
        async with self._client() as client:
            form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
            return await self._token(client, holder=holder, **form)

    async def revoke(self, token: str) -> None:
        """Revoke `token` as its client."""
        async with self._client() as client:
            answer = await client.post(
                "/token/revocation", data={"token": token}, auth=(CLIENT["id"], CLIENT["secret"])
            )
            assert answer.status_code == 200, answer.text

    async def user_token(self, user: str, resource: str, scope: str = "read write") -> str:
        """Log `user` in as a browser would: authorization code with PKCE, through the pages of login and consent."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        async with self._client() as client:
            response = await client.get(
                "/auth",
                params={
                    "client_id": CLIENT["id"], "response_type": "code", "redirect_uri": CLIENT["redirect_uri"],
                    "scope": f"openid {scope}", "resource": resource, "state": "state-1",
                    "code_challenge": challenge, "code_challenge_method": "S256",
                },
            )  # fmt: skip
            for _ in range(12):
                if response.is_redirect:
                    where = response.headers["location"]
                    if where.startswith(CLIENT["redirect_uri"]):
                        self._browsers[user] = client.cookies
                        code = parse_qs(urlsplit(where).query)["code"][0]
                        return await self._token(
                            client, grant_type="authorization_code", code=code, resource=resource,
                            redirect_uri=CLIENT["redirect_uri"], code_verifier=verifier,
                        )  # fmt: skip
                    response = await client.get(where)
                else:
                    response = await self._answer_page(client, response, user)
        raise AssertionError("the login did not end")

    async def log_out(self, user: str) -> None:
        """End the session of the user's last `user_token` as a browser would; the provider reports it before it answers."""
        async with self._client() as client:
            client.cookies = self._browsers.pop(user)
            page = await client.get("/session/end")
            xsrf = re.search(r'name="xsrf" value="([^"]+)"', page.text)
            assert xsrf is not None, page.text
            done = await client.post("/session/end/confirm", data={"xsrf": xsrf[1], "logout": "yes"})
            assert done.is_redirect, done.text

    async def log_in(self, page: str, user: str) -> httpx2.Response:
        """Follow `page` as a browser does, through the pages of login and consent, to where nothing is left to answer."""
        async with self._client() as client:
            response = await client.get(page)
            for _ in range(16):
                if response.is_redirect:
                    response = await client.get(response.headers["location"])
                elif 'name="prompt"' in response.text:
                    response = await self._answer_page(client, response, user)
                elif (code := re.search(r'name="xsrf" value="([^"]+)"', response.text)) is not None:
                    # The page of a device, which shows the code and asks whether it is the one on the device.
                    shown = re.search(r'name="user_code" value="([^"]+)"', response.text)
                    assert shown is not None, response.text
                    form = {"xsrf": code[1], "user_code": shown[1], "confirm": "yes"}
                    response = await client.post("/device", data=form)
                else:
                    return response
        raise AssertionError("the login did not end")

    async def _answer_page(self, client: httpx2.AsyncClient, page: httpx2.Response, user: str) -> httpx2.Response:
        assert page.status_code == 200, page.text
        prompt = re.search(r'name="prompt" value="(login|consent)"', page.text)
        action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
        assert prompt is not None
        assert action is not None
        return await client.post(action[1], data={"prompt": prompt[1], "login": user, "password": "any"})

    async def _token(self, client: httpx2.AsyncClient, *, holder: Holder | None = None, **form: str) -> str:
        proof = {} if holder is None else {"DPoP": holder.proof("", "POST", f"{self.issuer}/token", ath=None)}
        response = await client.post("/token", data=form, auth=(CLIENT["id"], CLIENT["secret"]), headers=proof)
        assert response.status_code == 200, response.text
        token: str = response.json()["access_token"]
        return token

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.issuer, timeout=60, trust_env=False)
