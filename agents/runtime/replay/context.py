"""`ReplayContext`: the context of a handler for a message that was decided in the past; nothing is sent through it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sealbus.agents.runtime.replay.sender import Unsent
from sealbus.agents.sdk.context import Context
from sealbus.agents.sdk.messages import Origin
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.decision.request import GivenApproval


class ReplayContext(Context):
    """The facts of a recorded message, as its evidence proves them, with an `Unsent` in place of the bus.

    It is made from an audit record, never from `Permitted`: nothing is permitted or handled here.
    """

    def __init__(
        self,
        message: VerifiedDecided,
        decision: DecisionRecord,
        obligations: tuple[Mapping[str, object], ...],
        unsent: Unsent,
    ) -> None:
        # Not the base's `__init__`: it takes a `Permitted`, which only the gate can make.
        self._decided = message
        self._decision = decision
        self._obligations = obligations
        self._sending = self._unsent = unsent

    @property
    def _message(self) -> VerifiedDecided:
        return self._decided

    @property
    def _sent(self) -> None:
        return None

    @property
    def _origin(self) -> Origin:
        return Origin()

    @property
    def _cancellation(self) -> Cancellation:
        return Cancellation()

    @property
    def replay(self) -> bool:
        """True: this is a replay."""
        return True

    @property
    def action(self) -> str:
        """The action that was decided on."""
        return self._decision.action

    @property
    def delivery(self) -> int:
        """The number of the delivery that was decided on."""
        return self._decision.delivery

    @property
    def obligations(self) -> tuple[Mapping[str, object], ...]:
        """The recorded obligations of the handler."""
        return self._obligations

    @property
    def approvals(self) -> tuple[GivenApproval, ...]:
        """The recorded verdicts that let the task go on."""
        approvals = json.loads(self._decision.input or b"{}").get("context", {}).get("approvals", [])
        return tuple([_approval(members) for members in approvals])

    async def _tell(self, state: State, note: str) -> None:
        Status(state=state, note=note)  # raises for an invalid note
        self._unsent.note("status", state.value, len(note.encode()))


def _approval(members: Mapping[str, Any]) -> GivenApproval:
    """Return an approval from the input document of a decision, whose time is to the second."""
    time = int(datetime.fromisoformat(members["time"]).timestamp()) * SECOND
    hashes = {name: bytes.fromhex(members[name]) for name in ("message", "record")}
    return GivenApproval(**{**members, **hashes, "time": time})
