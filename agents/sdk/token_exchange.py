"""The client of the edge's token service: exchanges a user's access token, or a partner's assertion, for a user context.

::

    async with Client("shop-web") as bus:
        user = await bus.user_context(access_token)
        user = await bus.user_context(assertion, asserted=True)

The settings must name the server as a minter; the TLS handshake checks that before the token is sent. The server returns
the context as text, base64url of `[1, payload, proof, credential]`: the statement that travels in an envelope (SPEC.md
sections 2 and 6), in the same canonical encoding.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import httpx2

from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.ports import Identity, X509Material
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import (
    Code,
    ConfigurationError,
    EnvelopeError,
    InfrastructureError,
    SealbusError,
    SealError,
)
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement, check_attached
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

USER_CONTEXT_TYPE: Final = "urn:sealbus:params:oauth:token-type:user-context"
"""`requested_token_type` and `issued_token_type` of the token service (RFC 8693 section 3 allows any URI here)."""

CONTEXT_TOKEN_BYTES: Final = 20_480
"""Longest text: the largest payload, credential and proof, and a third more for base64."""

_FORMAT: Final = 1

_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ASSERTION_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
_ANSWER_BYTES: Final = CONTEXT_TOKEN_BYTES + 4_096
_CONNECTIONS: Final = 32
_KEPT_SECONDS: Final = 4.0
"""Seconds to keep an idle connection: fewer than the edge does, so that no request is sent on a closing one."""


def context_token(statement: Statement) -> str:
    """Return `statement` as text."""
    proof, credential = statement.proof, statement.credential
    value: Value = [
        _FORMAT,
        statement.payload,
        [proof.size, proof.index, list(proof.path), proof.signature],
        [credential.kind, credential.token],
    ]
    return base64.urlsafe_b64encode(encode(value)).rstrip(b"=").decode("ascii")


def parse_context_token(text: str) -> Statement:
    """Return the statement that `text` encodes; nothing of it is verified.

    Raises `EnvelopeError` (`malformed` or `too_large`) for any other text.
    """
    if len(text) > CONTEXT_TOKEN_BYTES:
        raise EnvelopeError(Code.TOO_LARGE, 0, "context token")
    try:
        raw = text.encode("ascii")
        value = decode(base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True), step=0)
        # The values may be of any type. Only those of a statement encode to the same text again; others fail below.
        format_, payload, (size, index, path, signature), (kind, token) = value  # type: ignore[misc, str-unpack]
        statement = Statement(
            payload,  # type: ignore[arg-type]
            Proof(size, index, tuple(path), signature),  # type: ignore[arg-type]
            Credential(kind, token),  # type: ignore[arg-type]
        )
        if format_ != _FORMAT or context_token(statement) != text:
            raise EnvelopeError(Code.MALFORMED, 0, "context token")
        check_attached(statement, ())
    except (TypeError, ValueError, binascii.Error, SealError) as error:
        raise EnvelopeError(Code.MALFORMED, 0, "context token") from error
    return statement


class TokenServiceUnavailable(InfrastructureError):
    """The edge's token service did not answer, or its answer is not one of a token service."""

    code = Code.TOKEN_SERVICE_UNAVAILABLE


class ExchangeRefused(SealbusError):
    """The token service does not accept the token; `code` is the reason, as in the edge's answers to users."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code


class TokenExchange:
    """The exchange of tokens for one workload; enter with `async with`. `url` is https; only `edges` may answer there."""

    def __init__(self, url: str, *, identity: Identity, edges: frozenset[SpiffeId]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ConfigurationError("client.token_service must be an https URL")
        self._url: Final = url.rstrip("/") + ("" if parts.path.rstrip("/") else "/token")
        self._identity: Final = identity
        self._edges: Final = edges
        self._pool: _Pool | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.client.aclose()

    async def user_context(self, token: str, *, asserted: bool = False, within: float = 10.0) -> Statement:
        """Return a user context for the user of `token`, usable by this workload alone.

        `token` is an access token (RFC 8693) or, if `asserted`, an assertion of a partner (RFC 7523), which can be used once.
        Checks only the form of the context, its workload and its minter; the recipient of a message verifies it. Waits at
        most `within` seconds. Raises `ExchangeRefused` with the code of the edge, `TokenServiceUnavailable`,
        `IdentityUnavailable`.
        """
        form = (
            {"grant_type": _ASSERTION_GRANT, "assertion": token}
            if asserted
            else {"grant_type": _GRANT, "subject_token": token, "subject_token_type": _ACCESS_TOKEN}
        )
        form["requested_token_type"] = USER_CONTEXT_TYPE
        status, body, trouble = 0, bytearray(), ""
        try:
            async with (
                asyncio.timeout(within),
                self._client() as client,
                client.stream("POST", self._url, data=form) as answer,
            ):
                status = answer.status_code
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > _ANSWER_BYTES:
                        trouble = "the answer is too long"
                        break
        except (httpx2.HTTPError, TimeoutError) as error:
            # The text names hosts and TLS reasons only. The error holds the request with its form: do not chain it.
            trouble = str(error)[:300] or type(error).__name__
        if trouble:
            raise TokenServiceUnavailable(f"{self._url}: {trouble}")
        return self._statement(status, _members(bytes(body)))

    def _statement(self, status: int, answer: dict[str, object]) -> Statement:
        if status != 200:
            raise _refusal(status, answer)
        if answer.get("token_type") != "N_A" or answer.get("issued_token_type") != USER_CONTEXT_TYPE:
            raise TokenServiceUnavailable("the answer is not a user context")
        try:
            statement = parse_context_token(str(answer.get("access_token")))
            context = parse_payload(statement.payload)
        except EnvelopeError as error:
            raise TokenServiceUnavailable("the answer is not a user context") from error
        if context.wkl != self._identity.spiffe_id or context.iss not in self._edges:
            raise TokenServiceUnavailable("the answer is a context for another workload, or from another minter")
        return statement

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[httpx2.AsyncClient, None]:
        """Lend a client that shows the current X.509-SVID; close the client of a former SVID once no request uses it."""
        material = self._identity.x509()
        previous, pool = self._pool, self._pool
        if pool is None or pool.material is not material:
            pool = self._pool = _Pool(material, self._edges)
        pool.users += 1
        try:
            if previous is not None and previous is not pool and not previous.users:
                await previous.client.aclose()
            yield pool.client
        finally:
            pool.users -= 1
            if pool is not self._pool and not pool.users:
                await pool.client.aclose()


class _Pool:
    """The connections made with one X.509-SVID, and the number of requests that use them."""

    def __init__(self, material: X509Material, edges: frozenset[SpiffeId]) -> None:
        self.material: Final = material
        self.users = 0
        self.client: Final = httpx2.AsyncClient(
            verify=client_context(material, expected=edges),
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_KEPT_SECONDS),
        )


def _members(body: bytes) -> dict[str, object]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}


def _refusal(status: int, answer: dict[str, object]) -> SealbusError:
    try:
        code = Code(str(answer.get("code")))
    except ValueError:
        return TokenServiceUnavailable(f"the token service answered {status}")
    if status >= 500:
        return TokenServiceUnavailable(f"the token service failed: {code}")
    return ExchangeRefused(code, str(answer.get("error_description", ""))[:256])
