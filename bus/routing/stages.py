"""The stages of one message inside the gate. Each stage has its own type, so that none can be left out."""

from __future__ import annotations

from typing import NamedTuple

from sealbus.bus.ports import Delivery
from sealbus.bus.routing.routes import Resumed, Route
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code, SealbusError
from sealbus.policies.decision.decision import Decision

# Named tuples, as in `bus.ports` and for the same reason.


class Opened(NamedTuple):
    """A delivery that passed steps 1 to 13 at `time`, by the clock of the bus."""

    delivery: Delivery
    route: Route
    message: VerifiedMessage
    time: int
    resumed: Resumed | None = None
    """How it continues, if it is a parked task that is decided on again."""


class Decided(NamedTuple):
    """An opened message after steps 14 to 16: the policy's decision, or the error of the step that failed.

    `input_document` is empty, and `value` absent, if a step failed before there was one.
    """

    opened: Opened
    value: object = None
    input_document: bytes = b""
    decision: Decision | None = None
    error: SealbusError | None = None
    parks: bool = False
    """Whether it is a task that is denied until approval, and will be parked."""

    def __repr__(self) -> str:
        return f"Decided(opened={self.opened!r}, code={self.code!r}, ...)"

    @property
    def allowed(self) -> bool:
        """Return whether the policy allowed the message and no step failed."""
        return self.code is None

    @property
    def code(self) -> Code | None:
        """Return why the message is not handled; `None` if it is."""
        if self.error is not None:
            return Code(self.error.code)
        decision = self.decision
        return None if decision is not None and decision.allow is True else Code.DENIED
