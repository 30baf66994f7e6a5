"""The responder: answers NATS' authorization requests, each once, and refuses a connection that it cannot verify.

Several responders run in one queue group, in one process or many. Each has its own connection, which logs in by an nkey over
mutual TLS, in an account of its own. A request that cannot be opened or verified is not answered: the server refuses it after
its own timeout. Every other refusal is answered, with its code for the server's log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sealbus.agents.control.callout.key_files import CalloutKeys
from sealbus.agents.control.callout.nkeys import NkeyError, SigningKey
from sealbus.agents.control.callout.peer import VerifiedPeer, verify_peer
from sealbus.agents.control.callout.permissions import grants_of, own_facts
from sealbus.agents.control.callout.protocol import AuthorizationRequest, allowing, refusing, user_jwt, verify_request
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.frames import header_value
from sealbus.bus.nats.subscription import Asked, Responder
from sealbus.bus.ports import Clock, Identity
from sealbus.bus.telemetry import Counters, OperatorLog, shown
from sealbus.envelopes.errors import Code, ConnectRefused, SealbusError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.policies.decision.connect import ConnectAnswer, ConnectDecision, ConnectRequest, connect_document

_logger: Final = logging.getLogger(__name__)

SUBJECT: Final = "$SYS.REQ.USER.AUTH"
QUEUE: Final = "sealbus-callout"
ANSWER_SHARE: Final = 0.75
"""The part of a server's `authorization.timeout` in which a request is answered, counted from its arrival."""
FIRST_TIMEOUT: Final = 2.0
"""That timeout in seconds, nats-server's own, until a request says how long its server waits."""
CONCURRENCY: Final = 64
PENDING: Final = 4_096
"""Most waiting requests: one responder answers them within the `authorization.timeout` of deploy/local/nats/nats.conf."""

SERVERS: Final = 256
"""Most servers whose timeout is known. A server has a new key at each start."""

_XKEY_HEADER: Final = "Nats-Server-Xkey"

MOST: Final = 65_536
"""Most remembered requests: a request stays fresh for seconds, in which one responder answers a few thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedConnection:
    """One refusal. `subject` is the verified SPIFFE ID of the refused workload, empty if it was not verified.

    `reasons` come from the policy. `server` is the server's nkey, empty if no request was verified.
    """

    code: Code
    detail: str
    subject: str = ""
    reasons: tuple[str, ...] = ()
    server: str = ""


class ConnectEngine(Protocol):
    """The part of a `PolicyEngine` that the callout needs."""

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Return the decision on one connection to NATS (`connect_document`); failures are answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRules:
    """The rules of a deployment for connections to NATS.

    `accounts` are those in which the policy may place a connection; `servers`, if not empty, the nkeys of the only servers
    that are answered; `longest` the most seconds that a connection lasts, 0 for as long as its X.509-SVID.
    """

    names: Names
    accounts: Collection[str]
    own: Sequence[OwnSubject] = ()
    servers: Collection[str] = ()
    longest: float = 0.0


class Callout:
    """One responder. Connection, identity and engine are already entered and outlive it.

    `keys` are the current keys and then the keys that they replace: a server is answered under the keys that it uses.
    `on_refused` is called for each refusal; it must not block or raise.
    """

    def __init__(
        self,
        rules: ConnectRules,
        *,
        connection: Connection,
        identity: Identity,
        engine: ConnectEngine,
        keys: Sequence[CalloutKeys],
        counters: Counters | None = None,
        on_refused: Callable[[RefusedConnection], None] = lambda _: None,
        clock: Clock = wall_clock,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._engine = engine
        self._keys = tuple(keys)
        self._names = rules.names
        self._accounts = frozenset(rules.accounts)
        self._own = own_facts(rules.own)
        self._servers = frozenset(rules.servers)
        self._longest = int(rules.longest * SECOND)
        self._counters = counters or Counters()
        self._on_refused = on_refused
        self._clock = clock
        self._seen = SeenRequests()
        self._within: dict[str, float] = {}
        """By the curve key of a server, the seconds in which its requests are answered."""
        self._operator_log = OperatorLog(_logger)
        self._answering: Responder | None = None
        self._counters.describe({"sealbus_callout_total": "Connections to NATS that were asked about, by result."})

    @property
    def problem(self) -> str:
        """Why connections cannot be answered now, one line; empty if they can."""
        if self._answering is None:
            return "the auth callout is not running"
        if self._answering.refused:
            return f"the server does not let this responder answer: {self._answering.refused}"
        if not self._connection.connected:
            return self._connection.state
        return ""

    async def run(self) -> None:
        """Answer until cancelled."""
        async with Responder(
            self._connection,
            SUBJECT,
            queue=QUEUE,
            answer=self.answer,
            concurrency=CONCURRENCY,
            pending=PENDING,
            overloaded=lambda: self._refused(ConnectRefused(Code.OVERLOADED, "too many requests wait"), None, None),
        ) as answering:
            self._answering = answering
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._answering = None

    async def answer(self, asking: Asked) -> bytes | None:
        """Return the sealed answer to a request; None if it is no request of our servers, or too old."""
        sender = header_value(asking.header_block, _XKEY_HEADER)
        within = self._within.get(sender, ANSWER_SHARE * FIRST_TIMEOUT)
        if asyncio.get_running_loop().time() > asking.arrived + within:
            # The server's timeout is over: dropping this request answers new attempts sooner.
            self._refused(ConnectRefused(Code.OVERLOADED, "waited too long"), None, None)
            return None
        try:
            request, keys = self._request(asking.payload, sender)
        except ConnectRefused as error:
            self._refused(error, None, None)
            return None
        now = self._clock()
        peer: VerifiedPeer | None = None
        try:
            self._seen.take_request(request.user, expires=request.expires, now=now)
            within = self._learned(request) or within
            peer = verify_peer(request.chains, self._identity.x509().bundles, now=now)
            answer = await self._allowed(request, peer, keys.issuer, until=asking.arrived + within)
        except SealbusError as error:
            self._refused(error, request, peer)
            answer = refusing(request, Code(error.code), issuer=keys.issuer, now=now)
        else:
            self._counters.add("sealbus_callout_total", 1, outcome="allowed")
        return keys.xkey.seal(answer, sender)

    def _request(self, payload: bytes, sender: str) -> tuple[AuthorizationRequest, CalloutKeys]:
        """Return the request, and the keys whose public part its server has."""
        token, keys = self._opened(payload, sender)
        request = verify_request(token, now=self._clock(), servers=self._servers)
        # The header is not signed, but the request is. Only the server may be able to read the answer.
        if request.server_xkey != sender:
            raise ConnectRefused(Code.BAD_AUTH_REQUEST, "not sealed by its server's key")
        return request, keys

    def _opened(self, payload: bytes, sender: str) -> tuple[bytes, CalloutKeys]:
        failure: NkeyError | None = None
        for keys in self._keys:
            try:
                return keys.xkey.open(payload, sender), keys
            except NkeyError as error:
                failure = error
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, f"{failure}: is auth_callout.xkey our public key?") from failure

    def _learned(self, request: AuthorizationRequest) -> float:
        """Return the seconds in which requests of this server are answered, and keep them; 0 if it does not say."""
        within = ANSWER_SHARE * request.timeout
        if within:
            if len(self._within) >= SERVERS:
                self._within.clear()
            self._within[request.server_xkey] = within
        return within

    async def _allowed(
        self, request: AuthorizationRequest, peer: VerifiedPeer, issuer: SigningKey, *, until: float
    ) -> bytes:
        """Return the answer that admits `peer`; raise the `SealbusError` with the reason for a refusal."""
        now = self._clock()
        document = connect_document(
            ConnectRequest(
                subject=str(peer.spiffe_id),
                trust_domain=peer.spiffe_id.trust_domain.name,
                token=self._names.token(peer.spiffe_id),
                server=request.server,
                server_name=request.server_name,
                time=now,
                not_after=peer.not_after,
                own=self._own,
            )
        )
        try:
            async with asyncio.timeout_at(until):
                decision = await self._engine.connect(document)
        except TimeoutError as error:
            raise ConnectRefused(Code.POLICY_UNAVAILABLE, "no decision in time") from error
        if not isinstance(decision, ConnectDecision):
            raise decision
        if decision.allow is not True:
            raise _Denied(decision.reasons)
        grants = grants_of(
            decision, own=peer.spiffe_id, names=self._names, accounts=self._accounts, own_subjects=self._own
        )
        not_after = min(peer.not_after, now + self._longest) if self._longest else peer.not_after
        token = user_jwt(grants, user=request.user, issuer=issuer, not_after=not_after, now=now)
        return allowing(request, token, issuer=issuer, now=now)

    def _refused(self, error: SealbusError, request: AuthorizationRequest | None, peer: VerifiedPeer | None) -> None:
        refused = RefusedConnection(
            code=Code(error.code),
            detail=error.detail,
            subject=str(peer.spiffe_id) if peer is not None else "",
            reasons=error.reasons if isinstance(error, _Denied) else (),
            server=request.server if request is not None else "",
        )
        self._counters.add("sealbus_callout_total", 1, outcome=str(error.code))
        self._operator_log.warning(
            "connection refused: %s, %s%s",
            refused.subject or "unknown workload",
            refused.code,
            f" ({', '.join(refused.reasons) or refused.detail})" if refused.reasons or refused.detail else "",
            fields={
                "event": "connection refused",
                "code": str(refused.code),
                "reasons": [shown(reason) for reason in refused.reasons],
                "sender": refused.subject,
                "note": shown(refused.detail),
            },
        )
        self._on_refused(refused)


class _Denied(ConnectRefused):
    """The policy denied the connection."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(Code.DENIED, ", ".join(reasons))
        self.reasons = reasons


class SeenRequests:
    """The requests of one responder so far, by the nkey that the server makes for each.

    If another responder answers a copy, that is harmless: its user JWT is for a key that no client has, and is sealed for the
    server. Copies are refused because no honest server makes them.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._expiries: dict[str, int] = {}

    def take_request(self, user: str, *, expires: int, now: int) -> None:
        """Remember a request until it is no longer fresh; `expires` is in seconds, `now` in microseconds.

        Raises `ConnectRefused`: `replayed` if it was taken before, `overloaded` if no more can be remembered.
        """
        if user in self._expiries:
            raise ConnectRefused(Code.REPLAYED)
        if len(self._expiries) >= self._most:
            self._expiries = {user: until for user, until in self._expiries.items() if until >= now}
        if len(self._expiries) >= self._most:
            raise ConnectRefused(Code.OVERLOADED, "more fresh requests than can be remembered")
        self._expiries[user] = expires * SECOND + DEFAULT_LIMITS.clock_skew
