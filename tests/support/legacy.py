"""Services that know nothing of us, for tests: a small API of customers behind OAuth, and the same behind an API key.

::

    async with LegacyApi(OAuth(issuer=provider.issuer, audience=LEGACY_API)) as legacy:
        await http.get(f"{legacy.url}/customers/42", headers={"Authorization": f"Bearer {token}"})
    assert legacy.received[0].subject == "alice"
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from hmac import compare_digest
from types import TracebackType
from typing import Any, Final, Protocol, Self

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.bus.telemetry import Counters

__all__ = ["API_KEY_FIELD", "ApiKeys", "Guard", "LegacyApi", "OAuth", "Received", "Refused"]

API_KEY_FIELD: Final = "X-Api-Key"
_SECONDS: Final = 60.0


class Refused(Exception):
    """A request is not let in. Its text has nothing of the request in it."""


class Guard(Protocol):
    """Decides who a request is from."""

    @property
    def challenge(self) -> str:
        """What `WWW-Authenticate` says to whom is refused."""
        ...

    async def let_in(self, request: Request) -> Mapping[str, Any]:
        """Return what is known of the caller: `sub` at least. Raises `Refused`."""


@dataclass(frozen=True, slots=True)
class OAuth:
    """Takes JWTs of one issuer for one audience; the issuer's keys are asked for anew at each request."""

    issuer: str
    audience: str
    challenge: str = 'Bearer error="invalid_token"'

    async def let_in(self, request: Request) -> Mapping[str, Any]:
        """Return the claims of the token (RFC 9068)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refused("no token")
        try:
            found = jwt.decode(token, await self._keys(), algorithms=["ES256", "RS256"])
            jwt.JWTClaimsRegistry(
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self.audience},
                exp={"essential": True},
                sub={"essential": True},
            ).validate(found.claims)
        except (JoseError, ValueError) as error:
            raise Refused(f"token: {type(error).__name__}") from error
        return found.claims

    async def _keys(self) -> KeySet:
        async with httpx2.AsyncClient(timeout=_SECONDS, trust_env=False) as http:
            metadata = await http.get(f"{self.issuer}/.well-known/openid-configuration")
            keys = await http.get(metadata.raise_for_status().json()["jwks_uri"])
        # A set may also hold keys to encrypt with, which joserfc cannot always import.
        signing = [one for one in keys.raise_for_status().json()["keys"] if one.get("use") in (None, "sig")]
        return KeySet.import_key_set({"keys": signing})


class ApiKeys:
    """Takes any of `valid`, keys by a name: two while they are changed. Change the dictionary to revoke one."""

    challenge = "ApiKey"

    def __init__(self, valid: Mapping[str, str], *, name: str = API_KEY_FIELD) -> None:
        self.valid = dict(valid)
        self.name = name

    async def let_in(self, request: Request) -> Mapping[str, Any]:
        """Return the name of the key as `sub`."""
        shown = request.headers.getlist(self.name)
        for name, key in self.valid.items():
            if len(shown) == 1 and compare_digest(shown[0].encode(), key.encode()):
                return {"sub": name}
        raise Refused("no such key")


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came, whether it was let in or not; `caller` is empty if it was not."""

    method: str
    target: str
    """Path and query."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    """In the order in which they came, names in lower case."""
    body: bytes = field(repr=False)
    caller: Mapping[str, Any] = field(repr=False)
    status: int

    @property
    def subject(self) -> str:
        """As whom it was let in; empty if it was not."""
        return str(self.caller.get("sub", ""))

    def header(self, name: str) -> list[str]:
        """Return all values of one field."""
        return [value for key, value in self.headers if key == name.lower()]


class LegacyApi:
    """`GET /customers/{id}` and `POST /customers/{id}/notes` on a free port of 127.0.0.1, started by `async with`.

    `instead` answers in place of the routes, for those who are let in: to be slow, to fail, to redirect.
    """

    def __init__(self, guard: Guard, *, tls: ssl.SSLContext | None = None) -> None:
        self.guard = guard
        self.received: list[Received] = []
        self.notes: dict[str, list[dict[str, str]]] = {"42": [], "43": []}
        """Of each customer, what was noted and by whom."""
        self.instead: Callable[[Request], Awaitable[Response]] | None = None
        self.url = ""
        self._tls = tls
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        routes = [
            Route("/customers/{id}", self._guarded(self._customer), methods=["GET"]),
            Route("/customers/{id}/notes", self._guarded(self._note), methods=["POST"]),
        ]
        port = await self._stack.enter_async_context(
            listening(
                Starlette(routes=routes), "127.0.0.1:0",
                setting="legacy", limits=ConnectionLimits(stop_seconds=1), counters=Counters(), tls=self._tls,
            )
        )  # fmt: skip
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _guarded(
        self, route: Callable[[Request, str], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            caller: Mapping[str, Any] = {}
            try:
                caller = await self.guard.let_in(request)
            except Refused:
                given: Response = JSONResponse(
                    {"error": "not let in"}, 401, headers={"WWW-Authenticate": self.guard.challenge}
                )
            else:
                given = await (self.instead(request) if self.instead else route(request, str(caller["sub"])))
            query = f"?{request.url.query}" if request.url.query else ""
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
            self.received.append(
                Received(
                    method=request.method,
                    target=request.url.path + query,
                    headers=headers,
                    body=await request.body(),
                    caller=caller,
                    status=given.status_code,
                )
            )
            return given

        return answer

    async def _customer(self, request: Request, subject: str) -> Response:
        identifier = request.path_params["id"]
        if identifier not in self.notes:
            return JSONResponse({"error": "no such customer"}, 404)
        return JSONResponse({"id": identifier, "notes": self.notes[identifier], "seen_by": subject})

    async def _note(self, request: Request, subject: str) -> Response:
        identifier = request.path_params["id"]
        if identifier not in self.notes:
            return JSONResponse({"error": "no such customer"}, 404)
        note = {"text": str((await request.json())["text"]), "by": subject}
        self.notes[identifier].append(note)
        return JSONResponse(note, 201)
