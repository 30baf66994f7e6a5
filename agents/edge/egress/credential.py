"""Credentials for an API: a key of the API, or an access token that its authorization server gives the exit.

A token is for one user, or for the exit itself, and is kept in memory while it lives. Requests that need the same token share
one request to the server. Keys are read from their file for each request, so that a new key is used at once.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.oauth.client_authentication import ClientAuthentication, PrivateKeyJwt
from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.agents.edge.oauth.keys.discovery import Documents, FetchFailed, end_all, parsed_document
from sealbus.agents.edge.oauth.private_file import read_private
from sealbus.agents.edge.oauth.tokens.kept_tokens import KeptTokens, Owner
from sealbus.bus.ports import Clock
from sealbus.bus.routing.retry import Reject
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import UserContext

_logger: Final = logging.getLogger(__name__)

USER_REQUIRED: Final = "user_required"
LOGIN_REQUIRED: Final = "user_login_required"
TOKEN_UNAVAILABLE: Final = "token_unavailable"

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750 section 2.1."""
_ERROR: Final = re.compile(r"[a-z_]{1,64}")
_KEY: Final = re.compile(rb"[!-~]{8,4096}\n?")
"""Shorter keys are refused: they are weak, and would be found by chance in answers."""
_KEY_BYTES: Final = 8_192
_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")

LEAST_SECONDS: Final = 5
"""A token that expires sooner is replaced: it has to reach the API before it expires."""
UNSAID_SECONDS: Final = 60
"""How long a token is used whose answer has no `expires_in` (optional in RFC 6749 section 5.1)."""
MOST_SECONDS: Final = 3_600
KEPT: Final = 16_384
"""Most tokens that are kept, of some 2 KiB each; the oldest is dropped."""


class Credential(Protocol):
    """How the exit authenticates to one API."""

    async def secret(self, user: UserContext | None) -> str:
        """Return the secret for a call on behalf of `user`; raise `Reject` if there is none."""

    def fields(self, secret: str) -> dict[str, str]:
        """Return the header fields that carry `secret`."""

    def forget(self, user: UserContext | None, secret: str) -> bool:
        """Forget `secret`, which the API did not accept for `user`; return whether another secret may be available now."""

    async def close(self) -> None:
        """End open requests."""


class ApiKey:
    """The key in `file` (mode 0600), sent in the field `field`. Raises `ConfigurationError` if there is no key now."""

    def __init__(self, field: str, file: Path) -> None:
        if _FIELD.fullmatch(field) is None:
            raise ConfigurationError(f"key_header {field[:64]!r} is no name of a header field")
        self._field = field
        self._file = file
        self._read()

    def _read(self) -> str:
        key = _KEY.fullmatch(read_private(self._file, name="the API key", most=_KEY_BYTES))
        if key is None:
            raise ConfigurationError(f"{self._file} does not hold a key: 8 characters or more of ASCII without spaces")
        return key[0].strip().decode()

    async def secret(self, user: UserContext | None) -> str:
        """Return the key that the file holds now."""
        del user
        try:
            return await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            _logger.error("%s", error.detail)  # noqa: TRY400  the operator needs no traceback
            raise Reject(TOKEN_UNAVAILABLE) from error

    def fields(self, secret: str) -> dict[str, str]:
        """Return the field with the key."""
        return {self._field: secret}

    def forget(self, user: UserContext | None, secret: str) -> bool:
        """Return False: the file holds the only key."""
        del user, secret
        return False

    async def close(self) -> None:
        """Do nothing: there are no open requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target of a token: `audience` (RFC 8693), `resource` (RFC 8707), `scope`; empty values are left out."""

    audience: str = ""
    resource: str = ""
    scope: str = ""

    def form(self) -> dict[str, str]:
        """Return the parameters of a token request for it."""
        parameters = {"audience": self.audience, "resource": self.resource, "scope": self.scope}
        return {name: value for name, value in parameters.items() if value}


class Grant(Protocol):
    """The grant by which an authorization server gives a token."""

    def owner(self, user: UserContext | None) -> Owner | None:
        """Return the owner of the token, None for the exit itself; raise `Reject` if there is no token for `user`."""

    async def form(self, owner: Owner | None, *, audience: str, now: int) -> dict[str, str]:
        """Return the parameters of the grant for the server that calls itself `audience`; raise `Reject`."""


class ClientGrant:
    """The exit acts for itself (RFC 6749 section 4.4): the API sees no user."""

    def owner(self, user: UserContext | None) -> None:
        """Return None: the token is the exit's own."""
        del user

    async def form(self, owner: Owner | None, *, audience: str, now: int) -> dict[str, str]:
        """Return the parameter that names the grant."""
        del owner, audience, now
        return {"grant_type": "client_credentials"}


class _OfUsers:
    """A grant on behalf of users of `issuers`: users of other issuers could have the same ids."""

    def __init__(self, issuers: frozenset[str]) -> None:
        if not issuers:
            raise ConfigurationError("users is empty: name the issuers whose users the API knows")
        self._issuers = issuers

    def owner(self, user: UserContext | None) -> Owner:
        """Return the owner of the token; raise `Reject` (`user_required`) without a user, or for a user of another issuer.

        A client that acts for itself is refused: the API may know a user by the same id.
        """
        if user is None or user.typ is not None or user.idp not in self._issuers:
            raise Reject(USER_REQUIRED)
        return Owner.of(user)


class ExchangeGrant(_OfUsers):
    """The exchange of the user's own token, which the edge kept, for a token of the API (RFC 8693)."""

    def __init__(self, issuers: frozenset[str], kept_tokens: KeptTokens) -> None:
        super().__init__(issuers)
        self._kept_tokens = kept_tokens

    async def form(self, owner: Owner | None, *, audience: str, now: int) -> dict[str, str]:
        """Return the user's token as `subject_token`; raise `Reject` (`user_login_required`) if it has expired."""
        del audience
        token = await self._kept_tokens.find_token(owner, now=now) if owner is not None else None
        if token is None:
            raise Reject(LOGIN_REQUIRED)
        kind = "urn:ietf:params:oauth:token-type:access_token"
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": kind,
            "requested_token_type": kind,
        }


class AssertionGrant(_OfUsers):
    """An assertion, signed with the exit's key as a client, that the exit acts for the user (RFC 7523 section 2.1)."""

    def __init__(self, issuers: frozenset[str], client: PrivateKeyJwt) -> None:
        super().__init__(issuers)
        self._client = client

    async def form(self, owner: Owner | None, *, audience: str, now: int) -> dict[str, str]:
        """Return an assertion about the user for this server alone, valid for a minute.

        Raises `Reject` for a user with the client's name: an assertion about the client authenticates the client itself
        (RFC 7523 section 3).
        """
        if owner is None or owner.user == self._client.client_id:
            raise Reject(USER_REQUIRED)
        return {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": self._client.assertion(owner.user, audience=audience, now=now),
        }


class AuthorizationServer:
    """The server `issuer`, of which the exit is a client; its token endpoint is `endpoint`, or else that of its metadata."""

    def __init__(
        self,
        issuer: str,
        client: ClientAuthentication,
        documents: Documents,
        *,
        endpoint: str | None = None,
        limits: EdgeLimits = DEFAULT_EDGE_LIMITS,
    ) -> None:
        for url in filter(None, (issuer, endpoint)):
            if not is_secure_url(url):
                raise ConfigurationError(f"{url[:255]!r} must be an https URL, or http on a loopback address")
        self.issuer: Final = issuer
        self._client = client
        self._documents = documents
        self._endpoint = endpoint
        self._limits = limits
        self._found = ("", 0)

    async def token(self, grant: Grant, owner: Owner | None, target: Target, *, now: int) -> tuple[str, int]:
        """Return a token and the time at which it expires (microseconds).

        Raises `Reject`: `user_login_required` if the server refuses the user's grant, else `token_unavailable`.
        """
        try:
            async with asyncio.timeout(self._limits.fetch_seconds):
                form = await grant.form(owner, audience=self.issuer, now=now) | target.form()
                form, fields = await self._client.sign(form, issuer=self.issuer, now=now)
                status, document = await self._documents.answer(await self._token_endpoint(now), form, fields)
            answer = parsed_document(document, self._limits, "answer")
        except (FetchFailed, TimeoutError, BusUnavailable, IdentityUnavailable) as error:
            # The last two are raised before anything is sent: users' tokens or the exit's identity are not available.
            _logger.warning("%s gave no token: %s", self.issuer, str(error) or "too slow")
            raise Reject(TOKEN_UNAVAILABLE) from error
        if status != 200:
            word = answer.get("error")
            word = word if type(word) is str and _ERROR.fullmatch(word) else "no reason that can be shown"
            _logger.warning("%s gave no token: status %d, %s", self.issuer, status, word)
            of_user = owner is not None and word in {"invalid_grant", "invalid_token", "invalid_request"}
            raise Reject(LOGIN_REQUIRED if of_user else TOKEN_UNAVAILABLE)
        return _issued(answer, self.issuer, now)

    async def _token_endpoint(self, now: int) -> str:
        if self._endpoint is not None:
            return self._endpoint
        url, until = self._found
        if now >= until:
            endpoint = (await self._documents.metadata(self.issuer)).get("token_endpoint")
            if type(endpoint) is not str or not is_secure_url(endpoint, plain=self.issuer.startswith("http:")):
                raise FetchFailed("metadata: token_endpoint is missing or not https")
            url = endpoint
            self._found = url, now + self._limits.metadata_seconds * SECOND
        return url


def _issued(answer: dict[str, Json], issuer: str, now: int) -> tuple[str, int]:
    """Return the token of a successful answer (RFC 6749 section 5.1), and the time until which it is used."""
    token, kind, seconds = (
        answer.get("access_token"),
        answer.get("token_type"),
        answer.get("expires_in", UNSAID_SECONDS),
    )
    fits = type(token) is str and _TOKEN.fullmatch(token) is not None
    if not fits or type(kind) is not str or kind.lower() != "bearer" or type(seconds) is not int or seconds < 0:
        _logger.warning("%s gave no token: its answer does not hold a bearer token", issuer)
        raise Reject(TOKEN_UNAVAILABLE)
    return str(token), now + min(seconds, MOST_SECONDS) * SECOND


class IssuedTokens:
    """The tokens that `server` issues by `grant` for `target`; `close` ends the requests that are open."""

    def __init__(self, server: AuthorizationServer, grant: Grant, target: Target, *, clock: Clock) -> None:
        self._server = server
        self._grant = grant
        self._target = target
        self._clock = clock
        self._kept: OrderedDict[Owner | None, tuple[str, int]] = OrderedDict()
        self._flights: dict[Owner | None, asyncio.Task[str]] = {}

    async def secret(self, user: UserContext | None) -> str:
        """Return a token for `user` that lives long enough to be used; raise `Reject`."""
        owner = self._grant.owner(user)
        token, until = self._kept.get(owner, ("", 0))
        if self._clock() < until - LEAST_SECONDS * SECOND:
            return token
        flight = self._flights.get(owner)
        if flight is None:
            flight = asyncio.create_task(self._issue(owner), name=f"a token of {self._server.issuer}")
            # Retrieved here, because all callers may have left; it was logged.
            flight.add_done_callback(_retrieve)
            self._flights[owner] = flight
        # A caller that is cancelled does not end the request for the others.
        await asyncio.wait({flight})
        if flight.cancelled():
            raise Reject(TOKEN_UNAVAILABLE)
        return flight.result()

    async def _issue(self, owner: Owner | None) -> str:
        try:
            token, until = await self._server.token(self._grant, owner, self._target, now=self._clock())
        finally:
            del self._flights[owner]
        self._kept[owner] = token, until
        self._kept.move_to_end(owner)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return token

    async def close(self) -> None:
        """End open requests; their callers get no token."""
        await end_all(self._flights.values())

    def fields(self, secret: str) -> dict[str, str]:
        """Return `Authorization` with a bearer token (RFC 6750 section 2.1)."""
        return {"Authorization": f"Bearer {secret}"}

    def forget(self, user: UserContext | None, secret: str) -> bool:
        """Forget `secret`, unless a newer token has replaced it or is on its way; return True: a new one may be accepted."""
        owner = self._grant.owner(user)
        if self._kept.get(owner, ("", 0))[0] == secret:
            del self._kept[owner]
        return True


def _retrieve(flight: asyncio.Task[str]) -> None:
    if not flight.cancelled():
        flight.exception()
