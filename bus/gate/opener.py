"""Opens deliveries and parked tasks: steps 1 to 13, by the routes of one agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sealbus.bus.ports import Delivery
from sealbus.bus.routing.routes import Resumed, RouteTable
from sealbus.bus.routing.stages import Opened
from sealbus.bus.site import Site
from sealbus.bus.streams.held import PastTrust, current_only, verified_then
from sealbus.bus.streams.key_book import RestoredStreams, nothing_restored
from sealbus.bus.work.approvals.parked_tasks import Parked
from sealbus.envelopes.accept.live import LiveProfile, Replays, VerifiedMessage, accept_live
from sealbus.envelopes.accept.parked import accept_parked
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.errors import Code, EnvelopeError, SealbusError, StateUnavailable
from sealbus.envelopes.message.freshness import CoreArrival, StreamArrival
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches, ReplayMemory


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOrigin:
    """The times that step 6 needs for core calls: when this process started, and when its audit stream was created."""

    started: Callable[[], int]
    """By the time of the bus, which is known before a call is opened."""
    audit_created: int


@dataclass(frozen=True, slots=True)
class OpenedBatch:
    """The deliveries of a batch after steps 1 to 13, in order of arrival within each list."""

    opened: list[Opened] = field(default_factory=list)
    unknown: list[tuple[VerifiedMessage, Delivery]] = field(default_factory=list)
    """Genuine messages whose verb has no handler here."""
    refused: list[tuple[SealbusError, Delivery]] = field(default_factory=list)
    """Deliveries that were not opened, each with the reason."""


class Opener:
    """Opens the deliveries of one agent, for the handlers in `routes`; a core call is remembered in `replay` (step 6)."""

    def __init__(
        self,
        site: Site,
        profile: LiveProfile,
        *,
        routes: RouteTable,
        core: CoreOrigin,
        replay: ReplayMemory,
        restored: RestoredStreams = nothing_restored,
        past: PastTrust = current_only,
    ) -> None:
        self._site = site
        self._profile = profile
        self._routes = routes
        self._core = core
        self._replay = replay
        self._restored_streams = restored
        self._past = past

    async def open(self, deliveries: Sequence[Delivery]) -> OpenedBatch:
        """Verify each delivery (steps 1 to 13) and find its route; a failure affects only its own delivery."""
        batch = OpenedBatch()
        known, restored = await self._with_known_streams(deliveries, batch.refused)
        trust, now = self._site.trust(), self._site.bus_clock()
        replays = Replays(self._replay, restored)
        for delivery in known:
            try:
                route = self._routes.find_route(delivery.subject)
                message = accept_live(
                    delivery.payload,
                    delivery.arrival or CoreArrival(delivery.subject, self._core.started(), self._core.audit_created),
                    self._profile,
                    action=route.action if route is not None else self._unknown_action(delivery),
                    trust=trust,
                    caches=self._site.caches,
                    replays=replays,
                    now=now,
                )
            except EnvelopeError as error:
                batch.refused.append((error, delivery))
            else:
                if not self._site.transport.is_at_home(delivery, message.header.id.hex()):
                    batch.refused.append((EnvelopeError(Code.REPLAYED, 6, "another cell has this message"), delivery))
                elif route is not None:
                    batch.opened.append(Opened(delivery, route, message, now))
                else:
                    batch.unknown.append((message, delivery))
        return batch

    async def reopen(self, parked: Parked, resumed: Resumed) -> Opened | None:
        """Verify a parked task again, as it came, and find its route; return `None` if its verb has no handler here.

        Raises as `reopened_message` does.
        """
        route = self._routes.find_route(parked.header.to)
        if route is None:
            return None
        message = await reopened_message(
            parked, profile=self._profile, trust=self._site.trust(), past=self._past, caches=self._site.caches
        )
        delivery = Delivery(subject=parked.header.to, payload=parked.envelope, header_block=b"", arrival=parked.arrival)
        return Opened(delivery, route, message, self._site.bus_clock(), resumed)

    async def _with_known_streams(
        self, deliveries: Sequence[Delivery], refused: list[tuple[SealbusError, Delivery]]
    ) -> tuple[Sequence[Delivery], Sequence[RestoredStream]]:
        """Return the deliveries that can be opened, and how their streams were restored.

        Only a restored stream holds a message that is older than the stream: the key book is read for such a delivery alone.
        While it cannot be read, these deliveries are added to `refused`.
        """
        streams = [old.created for delivery in deliveries if (old := _older_than_its_stream(delivery)) is not None]
        if not streams:
            return deliveries, ()
        try:
            return deliveries, await self._restored_streams.restored(streams[0])
        except StateUnavailable as error:
            refused.extend((error, delivery) for delivery in deliveries if _older_than_its_stream(delivery))
            return [delivery for delivery in deliveries if not _older_than_its_stream(delivery)], ()

    def _unknown_action(self, delivery: Delivery) -> str:
        """Return the action that a subject without a handler stands for; refuse a call without a handler."""
        subject = delivery.subject
        if delivery.arrival is None:
            return self._routes.route_of(subject).action
        declared = self._profile.own_subjects.get(subject)
        return declared.action if declared is not None else self._routes.unknown_action(subject)


def _older_than_its_stream(delivery: Delivery) -> StreamArrival | None:
    """Return the arrival of a message that was stored before its stream was created, `None` for every other delivery."""
    arrival = delivery.arrival
    return arrival if arrival is not None and arrival.stored < arrival.created else None


async def reopened_message(
    parked: Parked, *, profile: LiveProfile, trust: Trust, past: PastTrust, caches: Caches
) -> VerifiedMessage:
    """Verify the message of a parked task again and return it, with the bundles of now or of when it was stored.

    Raises `EnvelopeError` if it is not genuine, `StateUnavailable` if the bundles of that time are not known now.
    """
    arrival = parked.arrival
    reader = ResultProfile(own=profile.own, names=profile.names, formats=profile.formats)

    def verify(bundles: Trust) -> VerifiedMessage:
        return accept_parked(
            parked.envelope,
            parked.digest,
            arrival,
            reader,
            own_subjects=profile.own_subjects,
            minters=profile.minters,
            trust=bundles,
            caches=caches,
        )

    return await verified_then(verify, arrival.stored, trust=trust, past=past, needed=True)
