"""The keys of issuers: fetched when needed, by one task for each issuer, and kept for a bounded time."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Self

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import KeysUnavailable, TokenRefused
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.discovery import Documents, FetchFailed, end_all
from sealbus.agents.edge.oauth.keys.key_set import KeySet, VerificationKey
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.limits import SECOND

_logger = logging.getLogger(__name__)

_FETCHED: Final = "sealbus_edge_key_fetches_total"


@dataclass(slots=True)
class _Row:
    """The state of one issuer's keys. All times are microseconds since the Unix epoch, by the callers' clock."""

    keys: KeySet | None = None
    fresh_until: int = 0
    stale_until: int = 0
    tried: int | None = None
    """When the last refresh began."""
    failed: bool = False
    """Whether the last refresh failed."""
    jwks_uri: str | None = None
    uri_until: int = 0
    absent: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Key ids that a refresh did not find, each with the time until which it counts as absent."""
    flight: asyncio.Task[None] | None = None


class KeySource:
    """The keys of all issuers of one edge. Use with `async with`, which ends all fetching.

    Callers that need a refresh of an issuer's keys share the refresh under way, which continues if a caller is cancelled. A
    key set is fresh as long as its Cache-Control says, within bounds. Then it is refreshed before the next token is
    verified. If that fails, the old set is used for a bounded time, and tokens no longer wait for refreshes. An unknown `kid`
    causes a refresh, unless a refresh began within the cool-down or the same `kid` was missing before: many made-up ids cause
    at most one fetch for each cool-down.
    """

    def __init__(
        self,
        limits: EdgeLimits = DEFAULT_EDGE_LIMITS,
        *,
        tls: ssl.SSLContext | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._limits = limits
        self._documents = Documents(limits, tls)
        self._rows: dict[str, _Row] = {}
        self._counters = counters or Counters()
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._documents.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        await end_all(row.flight for row in self._rows.values() if row.flight is not None)
        await self._documents.__aexit__()

    async def key(self, issuer: Issuer, kid: str | None, algorithm: str, *, now: int) -> VerificationKey:
        """Return the key of `issuer` called `kid` that may verify `algorithm`; without `kid`, the only such key.

        Raises `TokenRefused` if the issuer had no such key at most a cool-down ago, `KeysUnavailable` if it could not be
        asked. `issuer` is a row of the operator's table: nothing is kept for an issuer that only a token names.
        """
        row = self._rows.get(issuer.issuer)
        if row is None:
            row = self._rows[issuer.issuer] = _Row()
            self._counters.add(_FETCHED, 0, issuer=issuer.issuer, outcome="failed")
        await self._ensure(row, issuer, now)
        if row.keys is None or now >= row.stale_until:
            raise KeysUnavailable("no keys of the issuer", retry_after=self._limits.cool_down_seconds)
        key = row.keys.find_key(kid, algorithm)
        if key is None and kid is not None and self._may_look_for(row, kid, now):
            await _ended(self._fly(row, issuer, now))
            key = row.keys.find_key(kid, algorithm)
            if key is None and not row.failed:
                self._remember_absent(row, kid, now)
        if key is not None:
            return key
        if row.failed and kid is not None and kid not in row.absent:
            # The token may be good: the key may be new, and the issuer cannot be asked.
            raise KeysUnavailable(
                "the issuer cannot be asked for a new key", retry_after=self._limits.cool_down_seconds
            )
        raise TokenRefused("no such key of the issuer")

    async def _ensure(self, row: _Row, issuer: Issuer, now: int) -> None:
        """Refresh a set that is missing or no longer fresh; wait for the refresh only if that can help."""
        if row.keys is not None and now < row.fresh_until:
            return
        usable = row.keys is not None and now < row.stale_until
        if row.flight is None and self._cooling(row, now):
            return
        flight = self._fly(row, issuer, now)
        # Not if the issuer did not answer before: every token would wait for the whole deadline.
        if not (usable and row.failed):
            await _ended(flight)

    def _cooling(self, row: _Row, now: int) -> bool:
        return row.tried is not None and row.tried <= now < row.tried + self._limits.cool_down_seconds * SECOND

    def _may_look_for(self, row: _Row, kid: str, now: int) -> bool:
        until = row.absent.get(kid)
        if until is not None and now < until:
            return False
        return row.flight is not None or not self._cooling(row, now)

    def _remember_absent(self, row: _Row, kid: str, now: int) -> None:
        row.absent[kid] = now + self._limits.absent_key_seconds * SECOND
        row.absent.move_to_end(kid)
        while len(row.absent) > self._limits.absent_keys:
            row.absent.popitem(last=False)

    def _fly(self, row: _Row, issuer: Issuer, now: int) -> asyncio.Task[None]:
        """Return the refresh that is under way, or start one."""
        if self._closed:
            raise KeysUnavailable("closing", retry_after=self._limits.cool_down_seconds)
        if row.flight is None:
            row.tried = now
            row.flight = asyncio.create_task(self._fetch(row, issuer, now), name=f"keys of {issuer.issuer}")
        return row.flight

    async def _fetch(self, row: _Row, issuer: Issuer, now: int) -> None:
        """Read the issuer's keys into `row`; a failure is logged, and the old keys stay."""
        failed = True
        try:
            async with asyncio.timeout(self._limits.fetch_seconds):
                url = issuer.jwks_uri or await self._jwks_uri(row, issuer, now)
                fetched = await self._documents.keys(url)
        except (FetchFailed, TimeoutError) as error:
            # The key set may have moved, so the metadata is read again next time.
            row.jwks_uri = None
            self._counters.add(_FETCHED, issuer=issuer.issuer, outcome="failed")
            _logger.warning("keys of issuer %s not refreshed: %s", issuer.issuer, str(error) or "too slow")
        else:
            self._counters.add(_FETCHED, issuer=issuer.issuer, outcome="fetched")
            limits = self._limits
            max_age = limits.keys_fresh_seconds if fetched.max_age is None else fetched.max_age
            fresh = min(max(max_age, limits.keys_fresh_least_seconds), limits.keys_fresh_most_seconds)
            row.keys, failed = fetched.keys, False
            row.fresh_until = now + fresh * SECOND
            row.stale_until = row.fresh_until + limits.keys_stale_seconds * SECOND
        finally:
            row.flight, row.failed = None, failed

    async def _jwks_uri(self, row: _Row, issuer: Issuer, now: int) -> str:
        if row.jwks_uri is None or now >= row.uri_until:
            row.jwks_uri = await self._documents.jwks_uri(issuer)
            row.uri_until = now + self._limits.metadata_seconds * SECOND
        return row.jwks_uri


async def _ended(flight: asyncio.Task[None]) -> None:
    """Wait until `flight` has ended; cancelling the waiter leaves it running."""
    await asyncio.wait({flight})
