"""An issuer of access tokens inside the test's own loop: signs with joserfc, serves metadata and keys, fails on demand.

::

    async with LoopbackIssuer() as issuer, KeySource(tls=TRUSTS_NOBODY) as keys:
        verifier = AccessTokenVerifier([issuer.row()], keys)
        token = await verifier.verify(issuer.token(sub="alice"), now=wall_clock())
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.oauth.issuers import Issuer

__all__ = [
    "AUDIENCE",
    "PATIENT",
    "TRUSTS_NOBODY",
    "LoopbackIssuer",
    "Served",
    "compact",
    "new_key",
    "public_jwk",
    "signed",
]

AUDIENCE = "https://edge.example/api"
PATIENT = EdgeLimits(fetch_seconds=60.0)
"""For tests whose provider answers, however busy the machine is."""
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For key sources of tests: reading the system's certificates takes 20 ms each time, and no test of ours needs them."""


def new_key(algorithm: str = "ES256") -> Key:
    """Return a new private key for `algorithm`."""
    if algorithm == "Ed25519":
        return OKPKey.generate_key("Ed25519", private=True)
    if algorithm.startswith("ES"):
        return ECKey.generate_key({"256": "P-256", "384": "P-384", "512": "P-521"}[algorithm[2:]], private=True)
    if algorithm.startswith("HS"):
        return OctKey.generate_key(256)
    return RSAKey.generate_key(2048, private=True)


def public_jwk(key: Key, kid: str | None, **members: Any) -> dict[str, Any]:
    """Return the public half of `key` as a JWK, with `members` added."""
    return {**key.as_dict(private=False), **({} if kid is None else {"kid": kid}), **members}


def compact(
    header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], sign: Callable[[bytes], bytes]
) -> str:
    """Return a JWS of exactly these bytes, signed by `sign`; maps are written as JSON."""
    parts = [part if isinstance(part, bytes) else json.dumps(dict(part)).encode() for part in (header, payload)]
    covered = b".".join(map(_base64url, parts))
    return (covered + b"." + _base64url(sign(covered))).decode()


def signed(algorithm: str, key: Key) -> Callable[[bytes], bytes]:
    """Return a function that signs by `algorithm` with `key`, whatever a header says."""
    return lambda data: JWSRegistry.algorithms[algorithm].sign(data, key)


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


@dataclass
class Served:
    """What one path answers: set its fields to make it fail. `gate` holds the answer back until it is set."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    endless: bool = False
    """Send the body again and again, without a Content-Length, until the other side hangs up."""
    pause: float = 0.0
    """Seconds between these."""


class LoopbackIssuer:
    """One issuer, on a free port of 127.0.0.1. `keys` are its private keys by `kid`; change them and call `publish()`."""

    def __init__(self, algorithm: str = "ES256", *, path: str = "", tls: ssl.SSLContext | None = None) -> None:
        self._path = path
        self._tls = tls
        self.algorithm = algorithm
        self.keys: dict[str, Key] = {"key-1": new_key(algorithm)}
        self.key_set = Served()
        self.metadata = Served()
        self.metadata_paths = {f"{path}/.well-known/openid-configuration"}
        self.says: dict[str, dict[str, Any]] = {}
        """What is said of each token that is asked about (RFC 7662); of others, that they are not active."""
        self.introspection: Served | None = None
        """What is answered in place of that."""
        self.forms: list[dict[str, str]] = []
        """What was asked, with the field `Authorization` if there was one."""
        self.requests: list[str] = []
        """The path of each request."""
        self.asked = asyncio.Event()
        """Set at each request; clear it to wait for the next one."""
        self.issuer = ""
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        scheme = "http" if self._tls is None else "https"
        self.issuer = f"{scheme}://127.0.0.1:{port}{self._path}"
        self.metadata.body = json.dumps({"issuer": self.issuer, "jwks_uri": self.jwks_uri}).encode()
        self.publish()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._answering:
            task.cancel()
        if self._answering:
            await asyncio.wait(self._answering)
        await self._server.wait_closed()

    @property
    def jwks_uri(self) -> str:
        return f"{self.issuer}/jwks"

    @property
    def introspection_url(self) -> str:
        return f"{self.issuer}/introspect"

    @property
    def fetches(self) -> int:
        """How often the key set was asked for."""
        return self.requests.count(f"{self._path}/jwks")

    def publish(self, *more: Mapping[str, Any]) -> None:
        """Serve the public halves of `keys`, and `more` JWKs as they are."""
        listed = [public_jwk(key, kid) for kid, key in self.keys.items()]
        self.key_set.body = json.dumps({"keys": [*listed, *map(dict, more)]}).encode()

    def row(self, **changes: Any) -> Issuer:
        """Return this issuer's row for the table of an edge."""
        return Issuer(
            **{
                "issuer": self.issuer,
                "audiences": frozenset({AUDIENCE}),
                "algorithms": frozenset({self.algorithm}),
                **changes,
            }
        )

    def claims(self, *, now: int | None = None, life: int = 600, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token; `changes` replace them, None removes one. `now` is in microseconds."""
        second = int(time.time()) if now is None else now // 1_000_000
        claims = {
            "iss": self.issuer,
            "sub": "alice",
            "aud": AUDIENCE,
            "client_id": "shop-web",
            "jti": "token-1",
            "iat": second,
            "exp": second + life,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def header(self, **changes: Any) -> dict[str, Any]:
        """Return the header of a good token; `changes` replace its members, None removes one."""
        header = {"alg": self.algorithm, "typ": "at+jwt", "kid": next(iter(self.keys)), **changes}
        return {name: value for name, value in header.items() if value is not None}

    def token(
        self, *, header: Mapping[str, Any] | None = None, kid: str | None = None, key: Key | None = None, **claims: Any
    ) -> str:
        """Return a token signed by the first key, that of `kid`, or `key`; `claims` are those of `claims()`."""
        name = next(iter(self.keys)) if kid is None else kid
        return compact(
            self.header(**{"kid": name, **(header or {})}),
            self.claims(**claims),
            signed(self.algorithm, self.keys[name] if key is None else key),
        )

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line]
                fields = {name.lower(): value for name, value in lines}
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                self.requests.append(path)
                if path == f"{self._path}/introspect":
                    form = dict(parse_qsl(body.decode()))
                    self.forms.append(form | {name: value for name, value in fields.items() if name == "authorization"})
                self.asked.set()
                await self._send(self._served(path), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _served(self, path: str) -> Served:
        if path == f"{self._path}/jwks":
            return self.key_set
        if path in self.metadata_paths:
            return self.metadata
        if path == f"{self._path}/introspect":
            said = self.says.get(self.forms[-1].get("token", ""), {"active": False})
            return self.introspection or Served(body=json.dumps(said).encode())
        return Served(status=404)

    async def _send(self, served: Served, writer: asyncio.StreamWriter) -> None:
        if served.gate is not None:
            await served.gate.wait()
        headers = dict(served.headers)
        if not served.endless:
            headers["Content-Length"] = str(len(served.body))
        lines = [f"HTTP/1.1 {served.status} Said", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + served.body)
        await writer.drain()
        while served.endless:
            await asyncio.sleep(served.pause)
            writer.write(served.body)
            await writer.drain()
