"""`ReplayContext`: what a handler is given for a message that was decided on long ago; nothing leaves through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from sealbus.agents.runtime.replay.sender import Unsent
from sealbus.agents.sdk.bodies import JSON, TypedAction
from sealbus.agents.sdk.context import Context
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from sealbus.agents.sdk.sender import Receipt
    from sealbus.agents.sdk.task_handle import TaskHandle

__all__ = ["ReplayContext"]


class ReplayContext(Context):
    """The facts of a recorded message, as its evidence proves them, and an `Unsent` in place of the bus.

    It is made from what an audit record holds, never from `Permitted`: nothing was permitted here, and nothing is
    handled.
    """

    def __init__(
        self,
        message: VerifiedDecided,
        decision: DecisionRecord,
        obligations: tuple[Mapping[str, object], ...],
        unsent: Unsent,
    ) -> None:
        # Not the base's: that takes what only the gate can make.
        self._message = message
        self._decision = decision
        self._obligations = obligations
        self._unsent = unsent

    @property
    def replay(self) -> bool:
        """True: this is a replay."""
        return True

    @property
    def message_id(self) -> str:
        """The message's id, 32 hex digits."""
        return self._message.header.id.hex()

    @property
    def action(self) -> str:
        """The action that was decided on."""
        return self._decision.action

    @property
    def caller(self) -> SpiffeId:
        """Who sealed the message."""
        return self._message.header.iss

    @property
    def chain(self) -> tuple[SpiffeId, ...]:
        """Who sealed each message of the chain, the root first."""
        return tuple(header.iss for header in self._message.chain)

    @property
    def user(self) -> UserContext | None:
        """The user behind the message; absent where there was none."""
        return self._message.context

    @property
    def delivery(self) -> int:
        """Which delivery was decided on."""
        return self._decision.delivery

    @property
    def obligations(self) -> tuple[Mapping[str, object], ...]:
        """What the policy obliged the handler to, as recorded."""
        return self._obligations

    async def _tell(self, state: State, note: str) -> None:
        Status(state=state, note=note)  # raises for a note that no status can have
        self._unsent.note("status", state.value, len(note.encode()))

    async def call(  # type: ignore[override]  # one signature serves both forms of the base's
        self,
        action: TypedAction[Any, Any] | str,
        body: object,
        *,
        returns: type[Any] | None = None,
        timeout: float = 30.0,
        grants: tuple[str, ...] | None = None,
        media_type: str = JSON,
    ) -> object:
        """Note a call and raise `NotSent`."""
        return await self._unsent.call(
            action, body, returns=returns, timeout=timeout, grants=grants, media_type=media_type
        )

    def stream(
        self,
        action: TypedAction[Any, Any] | str,
        body: object,
        *,
        returns: type[Any] | None = None,
        timeout: float = 30.0,
    ) -> AsyncGenerator[Any, None]:
        """Note a call, and raise `NotSent` in place of the first chunk."""
        return self._unsent.stream(action, body, returns=returns, timeout=timeout)

    async def submit(
        self,
        action: str,
        body: object,
        *,
        life: float | None = None,
        partition: str | None = None,
        grants: tuple[str, ...] | None = None,
        media_type: str = JSON,
    ) -> TaskHandle:
        """Note a task; its handle raises `NotSent` when it is asked."""
        return await self._unsent.submit(
            action, body, life=life, partition=partition, grants=grants, media_type=media_type
        )

    async def emit(self, name: str, body: object, *, media_type: str = JSON) -> Receipt:
        """Note an event; its receipt names no message."""
        return await self._unsent.emit(name, body, media_type=media_type)
