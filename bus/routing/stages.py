"""The stages of one message inside the gate, each a type of its own, so that no stage can be left out."""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.bus.ports import Delivery
from sealbus.bus.routing.routes import Route
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code, SealbusError
from sealbus.policies.decision.decision import Decision

__all__ = ["Decided", "Opened"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A delivery that passed steps 1 to 13 at `time`, by this host's clock."""

    delivery: Delivery
    route: Route
    message: VerifiedMessage
    time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """An opened message after steps 14 to 16: what the policy decided, or the step that failed.

    `input_document` is empty where a step failed before there was one. `value` is the typed body, absent likewise.
    """

    opened: Opened
    value: object = None
    input_document: bytes = b""
    decision: Decision | None = None
    error: SealbusError | None = None

    @property
    def allowed(self) -> bool:
        """Tell whether the policy said exactly yes and no step failed."""
        return self.code is None

    @property
    def code(self) -> Code | None:
        """Return why the message is not handled; absent where it is."""
        if self.error is not None:
            return Code(self.error.code)
        decision = self.decision
        return None if decision is not None and decision.allow is True else Code.DENIED
