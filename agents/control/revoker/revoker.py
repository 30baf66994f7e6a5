"""Publishes revocations: what comes within a second goes into one push of the part `revocations`.

Any number of processes may do this at a time. Each reads the list in the store, adds what it was told, and replaces it by
compare-and-set; who loses reads again. Nothing is dropped to make room: a list that no longer fits one message refuses what
is new, and before that what is new of an issuer who fills it alone. The store is not believed: a list counts only if a key
signed it that the platform's bundle names, and if it is not older than the one before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sealbus.agents.runtime.policy.revocation import Revocation, listed_with
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.bus.streams.object_store import ONE_MESSAGE
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, InfrastructureError
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, key_id
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.revocations import (
    REVOCATIONS,
    REVOCATIONS_ROOT,
    Revocations,
    check_revocations,
    revokers_of,
)
from sealbus.policies.bundle.signing import BundleVerifier, VerifiedBundle, newer, sign_bundle
from sealbus.policies.decision.documents import DataDocument

__all__ = ["WAITING", "Revoker"]

_log: Final = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds from the end of one push to the next: each push costs every process what the whole list costs."""
AGAIN: Final = 5.0
"""Seconds until it is looked whether what failed works again, if nothing is to be published before."""
WITHIN: Final = 8.0
"""Seconds for one push with all its tries; the callers wait for ten."""
LOST: Final = Backoff(initial_interval=0.02, maximum_interval=0.5, jitter=0.5)
"""Pauses after somebody else wrote to the store, so that of several who try at the same moment one succeeds."""
WAITING: Final = 4_096
"""Revocations that wait for a push at a time."""
LEFT: Final = 9
"""How often what is left an issuer may have, of the list and of `WAITING`: nine tenths if it is alone, less beside others.
So something is left for every other, however much one reports."""
PACKED: Final = 4
"""How small a list is packed at best: it is counted as if it were no smaller, because each process unpacks all of it. Lists
of UUIDs or pseudonyms come to 0.45 of their text."""
ENTRY: Final = 22
"""Bytes of a time, quotes and commas beside each id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What the store has, verified: who may sign, the list and who signed it; `last` is needed to replace it."""

    revokers: Mapping[str, PublicKey]
    listed: DataDocument
    signer: str
    serial: int
    last: int


class Revoker:
    """The publisher of revocations in `store`, signed by `key`.

    `anchors` are the keys that sign the platform's bundle, which must name `key` among its revokers. `in_force` are the
    revocations by which this process denies: it has kept them from before it was started, so that a store that was emptied,
    or put back, is not believed.
    """

    def __init__(
        self,
        store: PolicyStore,
        anchors: Mapping[str, PublicKey],
        key: SigningKey,
        *,
        in_force: Callable[[], Revocations],
        counters: Counters | None = None,
        clock: Clock = wall_clock,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem = ""
        """Why nothing can be published now; empty if it can."""
        self._store = store
        self._anchors = anchors
        self._key = key
        self._in_force = in_force
        self._counters = counters or Counters()
        self._clock = clock
        self._elapsed = elapsed
        self._waiting: list[tuple[Revocation, asyncio.Future[None]]] = []
        self._open: Counter[str] = Counter()
        """How many of each issuer are not answered yet."""
        self._told = asyncio.Event()
        self._platform: tuple[int, Mapping[str, PublicKey]] = (0, {})
        """The sequence of the platform's bundle, and the revokers that it names."""
        self._newest: VerifiedBundle | None = None
        """The newest list that was seen."""

    async def revoke(self, one: Revocation) -> None:
        """Return once `one` is published, by `run`.

        Raises `BusUnavailable` if it could not be, or too many wait, in all or of its issuer.
        """
        left = WAITING - self._open.total()
        if len(self._waiting) >= WAITING or self._open[one.issuer] >= LEFT * left:
            raise BusUnavailable("too many revocations wait to be published")
        published = asyncio.get_running_loop().create_future()
        self._waiting.append((one, published))
        self._told.set()
        self._open[one.issuer] += 1
        try:
            await published
        finally:
            self._open[one.issuer] -= 1
            self._open = +self._open

    async def run(self) -> None:
        """Publish what `revoke` is told, at most once in `EVERY` seconds, until cancelled.

        Before the first, and while there is a `problem`, it looks whether it could.
        """
        while True:
            self._told.clear()
            waiting, self._waiting = self._waiting, []
            self.problem, without = await self._tried([one for one, _ in waiting])
            for one, published in waiting:
                if published.done():
                    continue  # its caller waits no longer
                if one.issuer in without:
                    published.set_exception(BusUnavailable("not published"))
                else:
                    published.set_result(None)
            again = self._elapsed() + EVERY
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN if self.problem else None):
                    await self._told.wait()
            await asyncio.sleep(again - self._elapsed())

    async def _tried(self, more: Sequence[Revocation]) -> tuple[str, AbstractSet[str]]:
        """Publish `more`; return why it failed, empty if it did not, and the issuers whose revocations are not published."""
        without: AbstractSet[str] = {one.issuer for one in more}
        try:
            async with asyncio.timeout(WITHIN):
                without = await self._publish(more)
        except TimeoutError:
            problem = f"the store did not take them within {WITHIN:g} s"
        except (ConfigurationError, InfrastructureError) as error:
            problem = error.detail
        else:
            if not without:
                return "", without
            problem = f"{', '.join(sorted(without))}: too much of the list, which one message holds"
        failed = sum(one.issuer in without for one in more)
        self._counters.add("sealbus_revocations_failed_total", failed)
        if more:
            _log.error("%d revocations are not published, and not accepted: %s", failed, problem)
        elif problem != self.problem:
            _log.error("revocations cannot be published: %s", problem)
        return problem, without

    async def _publish(self, more: Sequence[Revocation]) -> AbstractSet[str]:
        """Publish those of `more` for whose issuers the list has room; return the other issuers."""
        lost = 0
        while True:
            stored = await self._read()
            if key_id(self._key.public) not in stored.revokers:
                raise ConfigurationError(
                    f"the platform's bundle does not name the key {key_id(self._key.public)} among its revokers"
                )
            bundle, without = await asyncio.to_thread(self._fitting, stored, more)
            if bundle is None:
                return without
            if await self._store.objects.replace(REVOCATIONS, bundle.raw, last=stored.last) is not None:
                self._newest = VerifiedBundle(bundle=bundle, signer=key_id(self._key.public))
                self._counters.add("sealbus_revocations_pushed_total")
                _log.info("%s-%d is published", REVOCATIONS, bundle.serial)
                return without
            lost += 1
            await asyncio.sleep(LOST.interval(lost, random.random()))  # noqa: S311  not a secret

    def _fitting(self, stored: _Stored, more: Sequence[Revocation]) -> tuple[Bundle | None, AbstractSet[str]]:
        """Return the list with those of `more` for whose issuers there is room, None if it is unchanged; and the others."""
        without: set[str] = set()
        if not more and stored.listed and stored.signer != key_id(self._key.public):
            # Signed anew at the start: what another key signed is out of force once the platform names that one no longer.
            return self._signed(stored.listed, stored.serial + 1), without
        while taken := [one for one in more if one.issuer not in without]:
            listed = listed_with(stored.listed, taken, now=self._clock())
            if listed == stored.listed:
                break
            bundle = self._signed(listed, stored.serial + 1)
            crowding = _crowding(stored.listed, listed, len(bundle.raw))
            if not crowding:
                return bundle, without
            without |= crowding
        return None, without

    def _signed(self, listed: DataDocument, serial: int) -> Bundle:
        data: DataDocument = {"sealbus": {"revocations": listed}}
        bundle = read_bundle(pack_bundle({}, data, Manifest(roots=(REVOCATIONS_ROOT,), serial=serial)))
        check_revocations(bundle)
        return sign_bundle(bundle, self._key, scope=REVOCATIONS)

    async def _read(self) -> _Stored:
        """Return what is in the store. Raises `ConfigurationError` for what consumers would not put in force."""
        info = await self._store.objects.info(PLATFORM)
        if info is None:
            raise ConfigurationError("there is no platform's bundle in the store: push one first")
        if info.sequence != self._platform[0]:
            platform = await self._store.read(PLATFORM)
            raw = platform.raw if platform is not None else b""
            revokers = await asyncio.to_thread(self._revokers, raw)
            self._platform = (platform.last if platform is not None else 0, revokers)
        revokers, newest, in_force = self._platform[1], self._newest, self._in_force()
        if newest is not None and newest.signer not in revokers:
            newest = None
        part = await self._store.read(REVOCATIONS)
        if part is not None:
            listed = await asyncio.to_thread(_verified, part.raw, revokers)
            newer(listed.bundle, newest.bundle if newest is not None else None)
            self._newest = newest = listed
        # Without the part somebody has emptied the store: what was seen goes on.
        serial = newest.bundle.serial if newest is not None else 0
        if serial < in_force.serial:
            raise ConfigurationError(
                f"the store has no {REVOCATIONS} or older ones than {in_force.revision}, which are in force: push them anew"
            )
        return _Stored(
            revokers=revokers,
            listed=_listed(newest.bundle) if newest is not None else {},
            signer=newest.signer if newest is not None else "",
            serial=serial,
            last=part.last if part is not None else 0,
        )

    def _revokers(self, raw: bytes) -> Mapping[str, PublicKey]:
        return revokers_of(BundleVerifier(keys=self._anchors, scope=PLATFORM).verify(raw).bundle)


def _crowding(before: DataDocument, listed: DataDocument, packed: int) -> AbstractSet[str]:
    """Return the issuers that have more in `listed` than before, and too much for what its `packed` bytes leave.

    Of a list that does not fit at all the one of them that has most.
    """
    had, have = _text_bytes(before), _text_bytes(listed)
    text = sum(have.values())
    size = max(packed, text // PACKED)
    most = LEFT * (ONE_MESSAGE - size)
    more = {one: its for one, its in have.items() if its > had.get(one, 0)}
    if more and most <= 0:
        # Nothing would be left for anybody: it is tried again without the one that has most.
        return {max(more, key=more.__getitem__)}
    return {one for one, its in more.items() if its * size > most * text}


def _text_bytes(listed: DataDocument) -> Mapping[str, int]:
    """Return about how much of a list is each issuer's."""
    found: Counter[str] = Counter()
    for issuers in listed.values():
        for issuer, times in issuers.items() if isinstance(issuers, dict) else ():
            found[issuer] += sum(len(one.encode()) + ENTRY for one in times) if isinstance(times, dict) else 0
    return found


def _verified(raw: bytes, revokers: Mapping[str, PublicKey]) -> VerifiedBundle:
    found = BundleVerifier(keys=revokers, scope=REVOCATIONS).verify(raw)
    check_revocations(found.bundle)
    return found


def _listed(bundle: Bundle) -> DataDocument:
    """Return the list in a checked bundle."""
    found = bundle.data["sealbus"]
    listed = found["revocations"] if isinstance(found, dict) else None
    return listed if isinstance(listed, dict) else {}
