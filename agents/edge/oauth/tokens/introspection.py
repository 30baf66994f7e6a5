"""Ask the issuer of an opaque token for its claims (RFC 7662), and keep the answer for seconds."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Self

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import KeysUnavailable, TokenRefused
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint, Issuer
from sealbus.agents.edge.oauth.keys.discovery import Documents, FetchFailed, end_all, parsed_document
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.caches import BoundedMap

_logger: Final = logging.getLogger(__name__)


class Introspection:
    """The introspection requests of one edge. Use with `async with`, which ends open requests.

    Requests with the same token share one question to the issuer. An answer is used for `introspection_seconds`: so long a
    token that its issuer revoked is still accepted, and an inactive token causes no further question. Tokens are kept as
    hashes, and in a bounded number.
    """

    def __init__(self, limits: EdgeLimits = DEFAULT_EDGE_LIMITS, *, tls: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        self._documents = Documents(limits, tls)
        self._answers: BoundedMap[bytes, tuple[int, Mapping[str, Json] | None]] = BoundedMap(limits.introspected)
        self._flights: dict[bytes, asyncio.Task[Mapping[str, Json] | None]] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._documents.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        await end_all(self._flights.values())
        await self._documents.__aexit__()

    async def claims(self, issuer: Issuer, at: IntrospectionEndpoint, token: str, *, now: int) -> Mapping[str, Json]:
        """Return the claims of `token` from the endpoint `at` of `issuer`; only `active` is checked.

        Raises `TokenRefused` for a token that is not active, `KeysUnavailable` if the issuer could not be asked.
        """
        digest = sha256(f"{issuer.issuer} {token}".encode()).digest()
        until, answer = self._answers.get(digest) or (0, None)
        if now >= until:
            answer = await self._ask(issuer, at, token, digest, now)
        if answer is None:
            raise TokenRefused("the issuer says that it is not active")
        return answer

    async def _ask(
        self, issuer: Issuer, at: IntrospectionEndpoint, token: str, digest: bytes, now: int
    ) -> Mapping[str, Json] | None:
        flight = self._flights.get(digest)
        if flight is None:
            if self._closed or len(self._flights) >= self._limits.introspections:
                raise KeysUnavailable("too many tokens to ask about", retry_after=1)
            flight = asyncio.create_task(
                self._fetch(issuer, at, token, digest, now), name=f"a token of {issuer.issuer}"
            )
            self._flights[digest] = flight
        # A caller that is cancelled does not end the question for the others.
        await asyncio.wait({flight})
        try:
            return flight.result()
        except (FetchFailed, TimeoutError, asyncio.CancelledError) as error:
            raise KeysUnavailable("the issuer cannot be asked", retry_after=1) from error

    async def _fetch(
        self, issuer: Issuer, at: IntrospectionEndpoint, token: str, digest: bytes, now: int
    ) -> Mapping[str, Json] | None:
        form = {"token": token, "token_type_hint": "access_token"}
        try:
            async with asyncio.timeout(self._limits.fetch_seconds):
                signed = await at.client.sign(form, issuer=issuer.issuer, now=now)
                document = await self._documents.post(at.url, *signed)
            answer = _active(document, self._limits)
        except (FetchFailed, TimeoutError) as error:
            _logger.warning("issuer %s did not say about a token: %s", issuer.issuer, str(error) or "too slow")
            raise
        finally:
            self._flights.pop(digest, None)
        self._answers.put(digest, (now + self._limits.introspection_seconds * SECOND, answer))
        return answer


def _active(document: bytes, limits: EdgeLimits) -> Mapping[str, Json] | None:
    """Return the members of an answer, None if the token is not active; raise `FetchFailed` for another document."""
    answer = parsed_document(document, limits, "introspection")
    active = answer.get("active")
    if type(active) is not bool:
        raise FetchFailed("introspection: no word about active")
    return answer if active else None
