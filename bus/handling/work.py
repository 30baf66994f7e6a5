"""One delivery at its handler: what was permitted, when its turn came, who hears how it goes, and how it is settled."""

from __future__ import annotations

from sealbus.bus.handling.idempotency.claim_store import Claim
from sealbus.bus.handling.places import Cause, Places
from sealbus.bus.ports import Delivery, Pull
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.envelopes.message.header import Header

__all__ = ["Work"]


class Work:
    """A permitted message with its delivery, which is settled once: by `ack` or `put_off`.

    Until then it stands in `unsettled`, whose owner tells the broker that it is being handled (`alive`). `pull` is where
    it is settled, absent for a core call.
    """

    __slots__ = ("_unsettled", "claim", "delivery", "header", "permitted", "pull", "started")

    def __init__(self, permitted: Permitted, delivery: Delivery, pull: Pull | None, unsettled: set[Work]) -> None:
        self.permitted = permitted
        self.header: Header = permitted.message.header
        self.delivery = delivery
        self.pull = pull
        self.started = 0
        """When its turn came, in microseconds."""
        self.claim: Claim | None = None
        """Its claim on the effect, from before the handler runs."""
        self._unsettled = unsettled
        if pull is not None:
            unsettled.add(self)

    @property
    def progress(self) -> TaskReporter | None:
        """Who tells the requester that the handler works and what it returned, where its route has that told."""
        return self.permitted.reporter if self.permitted.route.status else None

    def alive(self) -> None:
        """Tell the broker that the delivery is being handled, so that it is not delivered again meanwhile."""
        if self.pull is not None:
            self.pull.working(self.delivery)

    def ack(self) -> None:
        """Acknowledge the delivery for good."""
        if self.pull is not None:
            self.pull.ack([self.delivery])
        self._unsettled.discard(self)

    def put_off(self, seconds: float, places: Places) -> None:
        """Have the delivery come again in `seconds`; only for what came from a stream."""
        if self.pull is None:
            raise TypeError("a call does not come again")
        places.put_off(Cause.PASSING, self.delivery, self.pull, seconds, attempted=self.claim is not None)
        self._unsettled.discard(self)
