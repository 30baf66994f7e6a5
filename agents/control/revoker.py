"""The role `revoker` of `sealbus control`: publishes the revocations that identity providers report to the edge.

Revocations of one second go into one push of the part `revocations`. Any number of processes may push at a time. Each reads
the list in the store, adds its new revocations, and replaces the list by compare-and-set; the loser reads again. No
revocation is dropped to make room. A list that no longer fits one message refuses new revocations; before that, it refuses
those of an issuer that fills it alone. The store is not trusted: a list counts only if a key that the platform's bundle names
has signed it, and if it is not older than the former list.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from sealbus.agents.edge.oauth.private_file import read_private
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.open import open_connected_node
from sealbus.agents.runtime.policy.revocation import REVOKER, Revocation, listed_with
from sealbus.agents.runtime.policy.source import anchors_of
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.process.process_record import recorded_process
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.context import Context
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.bus.routing.retry import Reject
from sealbus.bus.streams.object_store import ONE_MESSAGE
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, InfrastructureError
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, key_id, read_signing_key
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

_SETTING: Final = "control.revoker.key"
_KEY_BYTES: Final = 4_096
"""More than a P-256 key in PEM has."""

_logger: Final = logging.getLogger(__name__)

LOST: Final = Backoff(initial_interval=0.02, maximum_interval=0.5, jitter=0.5)
"""Pauses after a lost compare-and-set, so that of several processes that try at the same moment one succeeds."""
LEFT: Final = 9
"""How many times the remaining room one issuer may take, of the list and of those that wait: nine tenths of all if it is
alone, less beside others. So room is left for every other issuer, no matter how much one reports."""
PACKED: Final = 4
"""The best compression that counts, because each process unpacks the whole list: a list counts as at least a quarter of its
text. Lists of UUIDs or pseudonyms come to 0.45 of their text."""
ENTRY: Final = 22
"""Bytes of a time, quotes and commas beside each id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokerLimits:
    """The pace of a revoker, in seconds, and how much may wait for it."""

    every: float = 1.0
    """From the end of one push to the next: for each push, every process reads the whole list."""
    again: float = 5.0
    """Between checks, after a failure, whether publishing works again, if no revocation comes before."""
    within: float = 8.0
    """For one push with all its tries; the callers wait for ten."""
    waiting: int = 4_096
    """Most revocations that wait for a push at a time."""


LIMITS: Final = RevokerLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """The verified contents of the store: the keys that may sign, the list, its signer; `last` is needed to replace it."""

    revokers: Mapping[str, PublicKey]
    listed: DataDocument
    signer: str
    serial: int
    last: int


class Revoker:
    """The publisher of revocations in `store`, signed by `key`.

    `anchors` are the keys that sign the platform's bundle, which must name `key` among its revokers. `in_force` returns the
    revocations by which this process denies. They are kept over restarts, so a store that was emptied or rolled back is not
    trusted.
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
        limits: RevokerLimits = LIMITS,
    ) -> None:
        self.problem = ""
        """Why revocations cannot be published now; empty if they can."""
        self._store = store
        self._anchors = anchors
        self._key = key
        self._in_force = in_force
        self._counters = counters or Counters()
        self._clock = clock
        self._limits = limits
        self._waiting: list[tuple[Revocation, asyncio.Future[None]]] = []
        self._open: Counter[str] = Counter()
        """The number of unanswered revocations of each issuer."""
        self._arrived = asyncio.Event()
        self._platform: tuple[int, Mapping[str, PublicKey]] = (0, {})
        """The sequence of the platform's bundle, and the revokers that it names."""
        self._newest: VerifiedBundle | None = None
        """The newest list that was read or written."""

    async def revoke(self, revocation: Revocation) -> None:
        """Return once `run` has published `revocation`.

        Raises `BusUnavailable` if it could not be published, or if too many wait, in all or of its issuer.
        """
        waiting = self._limits.waiting
        left = waiting - self._open.total()
        if len(self._waiting) >= waiting or self._open[revocation.issuer] >= LEFT * left:
            raise BusUnavailable("too many revocations wait to be published")
        published = asyncio.get_running_loop().create_future()
        self._waiting.append((revocation, published))
        self._arrived.set()
        self._open[revocation.issuer] += 1
        try:
            await published
        finally:
            self._open[revocation.issuer] -= 1
            self._open = +self._open

    async def run(self) -> None:
        """Publish the revocations of `revoke`, at most once in `RevokerLimits.every` seconds, until cancelled.

        At the start, and again while there is a `problem`, it checks whether it could publish.
        """
        while True:
            self._arrived.clear()
            waiting, self._waiting = self._waiting, []
            self.problem, without = await self._tried([revocation for revocation, _ in waiting])
            for revocation, published in waiting:
                if published.done():
                    continue  # its caller was cancelled
                if revocation.issuer in without:
                    published.set_exception(BusUnavailable("not published"))
                else:
                    published.set_result(None)
            again = time.monotonic() + self._limits.every
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.again if self.problem else None):
                    await self._arrived.wait()
            await asyncio.sleep(again - time.monotonic())

    async def _tried(self, more: Sequence[Revocation]) -> tuple[str, AbstractSet[str]]:
        """Publish `more`; return why it failed, empty if it did not, and the issuers whose revocations are not published."""
        without: AbstractSet[str] = {revocation.issuer for revocation in more}
        try:
            async with asyncio.timeout(self._limits.within):
                without = await self._publish(more)
        except TimeoutError:
            problem = f"the store did not take them within {self._limits.within:g} s"
        except (ConfigurationError, InfrastructureError) as error:
            problem = error.detail
        else:
            if not without:
                return "", without
            problem = f"{', '.join(sorted(without))}: too much of the list, which must fit one message"
        failed = sum(revocation.issuer in without for revocation in more)
        self._counters.add("sealbus_revocations_failed_total", failed)
        if more:
            _logger.error("%d revocations are not published, and not accepted: %s", failed, problem)
        elif problem != self.problem:
            _logger.error("revocations cannot be published: %s", problem)
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
                _logger.info("%s-%d is published", REVOCATIONS, bundle.serial)
                return without
            lost += 1
            await asyncio.sleep(LOST.interval(lost, random.random()))  # noqa: S311  not a secret

    def _fitting(self, stored: _Stored, more: Sequence[Revocation]) -> tuple[Bundle | None, AbstractSet[str]]:
        """Return the list with those of `more` that have room, None if it is unchanged; and the issuers without room."""
        without: set[str] = set()
        if not more and stored.listed and stored.signer != key_id(self._key.public):
            # Signed again at the start: the list goes out of force once the platform no longer names the key that signed it.
            return self._signed(stored.listed, stored.serial + 1), without
        while accepted := [revocation for revocation in more if revocation.issuer not in without]:
            listed = listed_with(stored.listed, accepted, now=self._clock())
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
        """Return the contents of the store. Raises `ConfigurationError` for a list that consumers would not put in force."""
        info = await self._store.objects.info(PLATFORM)
        if info is None:
            raise ConfigurationError("there is no platform's bundle in the store: push one first")
        if info.sequence != self._platform[0]:
            platform = await self._store.read(PLATFORM)
            raw = platform.raw if platform is not None else b""
            verifier = BundleVerifier(keys=self._anchors, scope=PLATFORM)
            revokers = await asyncio.to_thread(lambda: revokers_of(verifier.verify(raw).bundle))
            self._platform = (platform.last if platform is not None else 0, revokers)
        revokers, newest, in_force = self._platform[1], self._newest, self._in_force()
        if newest is not None and newest.signer not in revokers:
            newest = None
        part = await self._store.read(REVOCATIONS)
        if part is not None:
            listed = await asyncio.to_thread(_verified, part.raw, revokers)
            newer(listed.bundle, newest.bundle if newest is not None else None)
            self._newest = newest = listed
        # Without the part, the store was emptied: the newest known list continues.
        serial = newest.bundle.serial if newest is not None else 0
        if serial < in_force.serial:
            raise ConfigurationError(
                f"the store has no {REVOCATIONS} or older ones than {in_force.revision}, which are in force: push them again"
            )
        return _Stored(
            revokers=revokers,
            listed=_listed(newest.bundle) if newest is not None else {},
            signer=newest.signer if newest is not None else "",
            serial=serial,
            last=part.last if part is not None else 0,
        )


def _crowding(before: DataDocument, listed: DataDocument, packed: int) -> AbstractSet[str]:
    """Return the issuers that have more in `listed` than before, and more than the room left by its `packed` bytes allows.

    If the list does not fit at all, return only the issuer among them that has most.
    """
    had, have = _text_bytes(before), _text_bytes(listed)
    text = sum(have.values())
    size = max(packed, text // PACKED)
    most = LEFT * (ONE_MESSAGE - size)
    more = {issuer: its for issuer, its in have.items() if its > had.get(issuer, 0)}
    if more and most <= 0:
        # No room would be left: the caller tries again without the issuer that has most.
        return {max(more, key=more.__getitem__)}
    return {issuer for issuer, its in more.items() if its * size > most * text}


def _text_bytes(listed: DataDocument) -> Mapping[str, int]:
    """Return about how many bytes of a list each issuer has."""
    sizes: Counter[str] = Counter()
    for issuers in listed.values():
        for issuer, times in issuers.items() if isinstance(issuers, dict) else ():
            sizes[issuer] += (
                sum(len(identifier.encode()) + ENTRY for identifier in times) if isinstance(times, dict) else 0
            )
    return sizes


def _verified(raw: bytes, revokers: Mapping[str, PublicKey]) -> VerifiedBundle:
    verified = BundleVerifier(keys=revokers, scope=REVOCATIONS).verify(raw)
    check_revocations(verified.bundle)
    return verified


def _listed(bundle: Bundle) -> DataDocument:
    """Return the list in a checked bundle."""
    platform = bundle.data["sealbus"]
    listed = platform["revocations"] if isinstance(platform, dict) else None
    return listed if isinstance(listed, dict) else {}


def revoker_agent(revoker: Revoker) -> Agent:
    """Return the agent whose calls hand revocations to `revoker`.

    A call is answered once its revocation is published. A call on behalf of a user is rejected: it came as a user's request
    (`edge.actions`), and not from an identity provider.
    """
    agent = Agent(REVOKER)

    @agent.call("revoke", facts=["kind", "issuer", "at"], timeout=10.0)
    async def revoke(body: Revocation, ctx: Context) -> None:
        if ctx.user is not None:
            raise Reject("user_present")
        await revoker.revoke(body)

    return agent


WORKER_LIMITS: Final = WorkerLimits(concurrency=LIMITS.waiting, pending_calls=LIMITS.waiting)
"""The limits of the revoker's worker: its calls only wait for a push."""


class RevokerRole:
    """A running revoker, and the worker that takes its calls."""

    def __init__(self, revoker: Revoker, worker: Worker) -> None:
        self._revoker = revoker
        self._worker = worker

    @property
    def problem(self) -> str:
        """Why revocations cannot be published now; empty if they can."""
        return self._revoker.problem or "; ".join(self._worker.not_ready().values())

    async def run(self) -> None:
        """Take calls and publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._revoker.run(), name="revoker")
            group.create_task(self._worker.run(asyncio.Event()), name="revoker-worker")


@asynccontextmanager
async def open_revoker(settings: Settings, *, counters: Counters) -> AsyncGenerator[RevokerRole, None]:
    """Open the role under the identity `revoker`. Raises `SealbusError`, one line, for a missing setting or file."""
    policy = settings.policy
    if settings.control.revoker.key is None:
        raise ConfigurationError(f"{_SETTING} is not set: the key that signs revocations, and nothing else")
    if policy.bucket is None:
        raise ConfigurationError("policy.bundle is not a bucket, where revocations are published: set nats://policies")
    file = settings.control.revoker.key
    pem = await asyncio.to_thread(read_private, file, name=_SETTING, most=_KEY_BYTES)
    key = read_signing_key(pem, name=f"{_SETTING}: {file}")
    anchors = await asyncio.to_thread(anchors_of, policy)
    async with open_connected_node(REVOKER, settings, counters=counters) as (node, connection):
        store = PolicyStore(connection, policy.bucket)
        clock = node.site.bus_clock
        revoker = Revoker(store, anchors, key, in_force=node.revocations, counters=counters, clock=clock)
        async with recorded_process(node), Worker(revoker_agent(revoker), node, WORKER_LIMITS) as worker:
            yield RevokerRole(revoker, worker)
