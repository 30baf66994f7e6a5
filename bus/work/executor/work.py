"""One delivery being handled: the permitted message, its start, its status reporter, and its settlement."""

from __future__ import annotations

from sealbus.bus.ports import Delivery, Settlement
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.work.idempotency.claim_store import Claim
from sealbus.bus.work.places import Cause, Places
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header


class Work:
    """A permitted message with its delivery, which is settled once: by `ack` or `put_off`.

    Until then it is in `unsettled`, whose owner tells the broker that it is being handled (`alive`). A core call has no
    `settlement`: it is not settled, but `drain` waits for it.
    """

    __slots__ = (
        "_unsettled",
        "claim",
        "delivery",
        "exp",
        "header",
        "is_first",
        "lined_up",
        "permitted",
        "progress",
        "settlement",
        "started",
        "tried",
    )

    def __init__(
        self, permitted: Permitted, delivery: Delivery, settlement: Settlement | None, unsettled: dict[Work, None]
    ) -> None:
        self.permitted = permitted
        self.header: Header = permitted.message.header
        self.delivery = delivery
        self.settlement = settlement
        resumed = permitted.resumed
        self.exp: int = self.header.exp if resumed is None else resumed.approval.header.exp
        """The end of the time in which it may be handled (microseconds). For a parked task, that of its approval."""
        self.tried: Delivery = delivery if resumed is None else delivery_of(resumed.approval)
        """The delivery whose number counts the attempts. For a parked task, that of its approval."""
        arrival = self.tried.arrival
        self.is_first = arrival is None or arrival.delivery == 1
        """Whether `tried` was delivered for the first time."""
        self.progress: TaskReporter | None = permitted.reporter if permitted.route.options.status else None
        """The reporter of progress and result, if the route reports them to the requester."""
        self.started = 0
        """When its handler's turn came, in microseconds; 0 before."""
        self.claim: Claim | None = None
        """Its claim on the effect, made before the handler runs."""
        self.lined_up = False
        """Whether it had to wait for a limit of its handler or partition."""
        self._unsettled = unsettled
        unsettled[self] = None

    @property
    def since(self) -> int | None:
        """The beginning of the time that all its attempts share (microseconds); `None` for a call."""
        resumed = self.permitted.resumed
        arrival = self.delivery.arrival if resumed is None else resumed.approval.arrival
        return arrival.stored if isinstance(arrival, StreamArrival) else None

    @property
    def source(self) -> Settlement | str:
        """The source of the delivery: a consumer, or the subject of a call."""
        return self.settlement if self.settlement is not None else self.delivery.subject

    def alive(self) -> None:
        """Tell the broker that the delivery is being handled, so that it is not redelivered."""
        if self.settlement is not None:
            self.settlement.working(self.delivery)

    def ack(self) -> None:
        """Acknowledge the delivery for good."""
        if self.settlement is not None:
            self.settlement.ack([self.delivery])
        self._unsettled.pop(self, None)
        if self.permitted.span is not None:
            self.permitted.span.end("acknowledged")

    def put_off(self, seconds: float, places: Places) -> None:
        """Have the delivery redelivered in `seconds`; only for stream deliveries."""
        if self.settlement is None:
            raise TypeError("a call is not redelivered")
        places.put_off(Cause.PASSING, self.tried, self.settlement, seconds)
        self._unsettled.pop(self, None)
        if self.permitted.span is not None:
            self.permitted.span.end("put off")


def delivery_of(approval: VerifiedMessage) -> Delivery:
    """Return the delivery of an approval; raise `TypeError` if it came by no stream."""
    arrival = approval.arrival
    if not isinstance(arrival, StreamArrival):
        raise TypeError("an approval comes from a stream")
    return Delivery(subject=arrival.subject, payload=b"", header_block=b"", arrival=arrival)
