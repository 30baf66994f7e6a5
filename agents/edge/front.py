"""Admission to the edge, shared by all its resources: tokens, rates, contexts, and the actions that are exposed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from starlette.requests import Request

from sealbus.agents.edge.http.application import NONCE, REQUEST_ID
from sealbus.agents.edge.http.bodies import read_body
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import EdgeError, TokenRefused, too_often
from sealbus.agents.edge.http.rate_limits import TokenBuckets
from sealbus.agents.edge.oauth.bearer import Scheme, presented_token
from sealbus.agents.edge.oauth.bound.possession import Possession
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken, AccessTokenVerifier
from sealbus.agents.edge.oauth.tokens.assertion import Assertion, Assertions
from sealbus.agents.edge.oauth.tokens.kept_tokens import KeptTokens, Owner
from sealbus.agents.edge.oauth.tokens.pseudonyms import Pseudonyms
from sealbus.agents.edge.oauth.tokens.security_events import SecurityEventVerifier
from sealbus.agents.edge.oauth.tokens.user_context import ContextMinter
from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.bodies import JSON, MSGPACK
from sealbus.agents.sdk.messages import NO_SUBJECTS, split_action
from sealbus.bus.sending.message import Content
from sealbus.envelopes.errors import Code, ConfigurationError, SealError
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import Names, is_token
from sealbus.envelopes.trust.spiffe_id import SpiffeId

SCHEME: Final = "sealbus.scheme"
"""Key of the request's scope that holds the scheme of its access token."""
DOOR: Final = "sealbus.door"
"""Key of the request's scope with the protocol by which it came, if not the edge's own; a claim of its contexts."""
RESOURCE: Final = "sealbus.resource"
"""Key of the request's scope that holds the resource for the challenge of its answer, if it is not the edge's."""


class NamedResource(NamedTuple):
    """A resource in challenges: its URL, and the scopes that its clients should request, separated by spaces."""

    url: str
    scopes: str = ""


_ALL: Final = "*"


class Exposed:
    """The actions that can be requested from outside: `inventory.update`, or `inventory.*` for all verbs of an agent.

    The edge does not know which verbs an agent has: under `*` a message with an unknown verb is sent, and never handled. A
    subject of `own` is reached only by its action, although its text may look like another action. Raises
    `ConfigurationError` for a pattern of another form, or an agent without an identity.
    """

    def __init__(self, patterns: Sequence[str], names: Names, own: OwnSubjects = NO_SUBJECTS) -> None:
        for pattern in patterns:
            try:
                agent, verb = split_action(pattern)
            except SealError as error:
                raise ConfigurationError(f"edge.actions {pattern!r}: write <agent>.<verb> or <agent>.*") from error
            if not is_token(agent) or not (verb == _ALL or is_token(verb)):
                raise ConfigurationError(f"edge.actions {pattern!r}: write <agent>.<verb> or <agent>.*")
            names.id_of(agent)
        self._patterns: Final = frozenset(patterns)
        self._own: Final = own

    def action(self, agent: str, verb: str) -> str:
        """Return the action that a path names; raise 404 for one that is not exposed, whether or not it exists."""
        action = f"{agent}.{verb}"
        if is_token(agent) and is_token(verb) and (action in self._patterns or f"{agent}.{_ALL}" in self._patterns):
            declared = self._own.get(action)
            if declared is None or declared.action == action:
                return action
        raise EdgeError(Code.NOT_FOUND, 404, "no such action")

    def shows(self, agent: str, verb: str) -> bool:
        """Return whether the action that a path names is exposed."""
        try:
            self.action(agent, verb)
        except EdgeError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """One edge. `resource` is its identifier by RFC 9728, a URL; `stopping` is set when open streams must end.

    `shows_certificates` says whether clients can present a certificate. Behind the edge users have their `pseudonyms` for
    names, without them their ids.
    """

    node: Node
    verifier: AccessTokenVerifier
    assertions: Assertions
    events: SecurityEventVerifier
    issuers: Sequence[Issuer]
    resource: str
    exposed: Exposed
    possession: Possession
    shows_certificates: bool = False
    pseudonyms: Pseudonyms | None = None
    kept_tokens: KeptTokens | None = None
    limits: EdgeLimits = DEFAULT_EDGE_LIMITS
    users: TokenBuckets = field(init=False)
    clients: TokenBuckets = field(init=False)
    readers: TokenBuckets = field(init=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        limits = self.limits
        object.__setattr__(self, "readers", self.buckets(limits.read_rate, limits.read_burst))
        object.__setattr__(self, "users", self.buckets(limits.user_rate, limits.user_burst))
        object.__setattr__(self, "clients", self.buckets(limits.client_rate, limits.client_burst))

    def buckets(self, rate: float, burst: int) -> TokenBuckets:
        """Return new token buckets: `burst` requests at once, then `rate` a second, by this process's monotonic clock."""
        elapsed = self.node.site.elapsed
        return TokenBuckets(rate=rate, burst=burst, entries=self.limits.rate_entries, clock=elapsed)

    async def verified(self, token: str, *, now: int) -> AccessToken:
        """Return the contents of `token` (`AccessTokenVerifier.verify`), named.

        Raises `TokenRefused` (`revoked`) if its user, session or client is revoked. The bus would deny their messages; this
        also protects what the edge itself knows of their tasks. Raises `ClockSkew` while our clock and the broker's disagree,
        or the broker's time is not known; `BusUnavailable` if the user's pseudonym cannot be read.
        """
        self._check_clock()
        return self.unrevoked(await self.named(await self.verifier.verify(token, now=now)))

    async def asserted(self, assertion: str, *, presenter: SpiffeId, now: int) -> Assertion:
        """Return a partner's `assertion` from `presenter`, verified and named but not yet used; raises as `verified`."""
        self._check_clock()
        verified = await self.assertions.verify(assertion, presenter=presenter, now=now)
        return replace(verified, contents=self.unrevoked(await self.named(verified.contents)))

    async def named(self, token: AccessToken) -> AccessToken:
        """Return `token` with its subject's name behind the edge. Raises `BusUnavailable`."""
        return replace(token, name=await self.user_id(token.issuer, token.subject))

    def _check_clock(self) -> None:
        """Raise `ClockSkew` unless our clock is known to be right: tokens are judged, and messages dated, by it."""
        if (problem := self.node.clocks.problem) is not None:
            raise problem

    def unrevoked(self, token: AccessToken) -> AccessToken:
        """Return the named `token`; raise `TokenRefused` (`revoked`) if its user, session or client is revoked by now.

        A user is also revoked by the name without rows, which was the user's before there were random pseudonyms.
        """
        revocations = self.node.revocations()
        if not revocations:
            return token
        keyed = (
            self.pseudonyms.key.derived(token.issuer, token.subject) if self.pseudonyms is not None else token.subject
        )
        for name in {token.name, self._in_domain(token.issuer, keyed)}:
            reason = revocations.reason(
                issuer=token.issuer,
                user=name,
                session=token.session,
                client=token.client,
                login=token.auth_time or 0,
            )
            if reason is not None:
                raise TokenRefused(reason, code=Code.REVOKED)
        return token

    async def user_id(self, issuer: str, subject: str) -> str:
        """Return the name behind the edge of the user that `issuer`, one of the rows, calls `subject`.

        Raises `BusUnavailable`.
        """
        name = subject if self.pseudonyms is None else await self.pseudonyms.of(issuer, subject)
        return self._in_domain(issuer, name)

    def _in_domain(self, issuer: str, name: str) -> str:
        """Return the `name` of a user of `issuer`: that of a partner's user is `NAME@DOMAIN`."""
        [domain] = [row.domain for row in self.issuers if row.issuer == issuer]
        return name if domain is None else f"{name}@{domain}"

    async def admitted(self, request: Request) -> AccessToken:
        """Return the contents of the request's access token, after its sender has proved to hold the key of a bound token.

        Raises 401, 400, 503, or 429 for a user or client over the limit.
        """
        presented, now = presented_token(request.headers), self.node.clock()
        request.scope[SCHEME] = presented.scheme
        if presented.scheme is Scheme.DPOP and (nonce := self.possession.nonce(now)) is not None:
            request.scope[NONCE] = nonce
        token = await self.verified(presented.token, now=now)
        proof = self.possession.check(presented, token, request.scope, now=now)
        self.charge(token, 1.0)
        if proof is not None:
            await self.possession.use(proof)
        await self.keep(presented.token, token, now=now)
        return token

    async def keep(self, presented: str, token: AccessToken, *, now: int) -> None:
        """Keep the token `presented`, whose contents are `token`, for the exit, if its issuer's row says so.

        A token that is bound to a key is not kept. Raises `BusUnavailable`.
        """
        if self.kept_tokens is None or token.bound is not None:
            return
        if not any(issuer.keep_tokens for issuer in self.issuers if issuer.issuer == token.issuer):
            return
        owner = Owner(token.issuer, token.name, token.client, token.session)
        await self.kept_tokens.keep(presented, owner, expires=token.expires, now=now)

    async def body(self, request: Request, token: AccessToken, allowed: tuple[str, ...] = (JSON, MSGPACK)) -> Content:
        """Return the request's body, whose size counts towards the rates; raises as `read_body`, or 429."""
        charged = self.limits.charged_bytes
        return await read_body(request, self.limits, lambda size: self.charge(token, size / charged), allowed)

    def charge(self, token: AccessToken, cost: float) -> None:
        """Count `cost` more requests of the token's user and client; raise 429 if they exceed the limit."""
        if wait := self._wait(token, cost):
            raise too_often(wait)

    def affords(self, token: AccessToken, cost: float) -> bool:
        """Count `cost` more requests of the token's user and client; return whether they are within the limit."""
        return not self._wait(token, cost)

    def charge_read(self, token: AccessToken) -> None:
        """Count a read of a task's state or result by the token's user; raise 429 if reads exceed the limit."""
        if wait := self.readers.take((token.issuer, token.subject)):
            raise too_often(wait)

    def affords_read(self, token: AccessToken) -> bool:
        """Count a read of a task's state or result by the token's user; return whether reads are within the limit."""
        return not self.readers.take((token.issuer, token.subject))

    def _wait(self, token: AccessToken, cost: float) -> float:
        # The user first: a request that is refused for its user is not charged to the client.
        wait = self.users.take((token.issuer, token.subject, token.client), cost)
        return wait or self.clients.take((token.issuer, token.client), cost)

    def context(self, token: AccessToken, request: Request, workload: SpiffeId | None = None) -> Statement:
        """Return a fresh user context of `token` for `request`: for `workload`, or for a chain that starts at the edge."""
        minter = ContextMinter(trust_domain=self.node.own.trust_domain, limits=self.limits)
        return minter.mint(
            token,
            self.node.identity.sealer(),
            transaction=request.scope[REQUEST_ID],
            now=self.node.site.bus_clock(),
            workload=workload,
            door=request.scope.get(DOOR, ""),
        )
