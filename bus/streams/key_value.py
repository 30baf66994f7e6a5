"""Small values by subject, shared by all processes of an identity, usually in the stream STATE: written by compare-and-set.

A write names the sequence that it replaces: if two processes write at the same moment, one write fails. NATS permissions
limit an identity to `state.<own token>.` in STATE. Values here are not signed. The operator of the broker can change them,
and any agent can have bytes stored under another agent's token, because nats-server answers under any reply subject that a
client names. The writer signs a value that would do harm if forged (`signed_value`).
"""

from __future__ import annotations

from sealbus.bus.nats.api import EXPECTED_LAST, NOT_THE_LAST
from sealbus.bus.ports import Outgoing, PubAck, StoredValue, StreamRefused, Transport
from sealbus.bus.stream_names import STATE
from sealbus.envelopes.errors import BusUnavailable


class KeyValue:
    """The values of `stream` on one transport. Every wait ends after `within` seconds, with `BusUnavailable`.

    After `BusUnavailable` from a write the value may be stored: read, and write again if it is not.
    """

    def __init__(self, transport: Transport, stream: str = STATE) -> None:
        self._transport = transport
        self._stream = stream

    async def create(self, subject: str, payload: bytes, *, within: float = 5.0) -> int | None:
        """Store the first value of `subject`; return its sequence, or `None` if the subject holds one already.

        Raises `BusUnavailable`, also if the stream is full or does not exist.
        """
        if len(self._transport.cells_of(subject)) > 1 and await self.get(subject, within=within) is not None:
            # Its owner was moved: what it has stored before counts, and the stream does not know it.
            return None
        return await self.replace(subject, payload, last=0, within=within)

    async def replace(self, subject: str, payload: bytes, *, last: int, within: float = 5.0) -> int | None:
        """Replace the value with sequence `last`; return the new sequence, or `None` if `last` is no longer current.

        Raises as `create` does.
        """
        outgoing = Outgoing(subject=subject, payload=payload, headers={EXPECTED_LAST: str(last)})
        (answer,) = await self._transport.publish([outgoing], deadline=within)
        if isinstance(answer, PubAck):
            return answer.sequence
        if isinstance(answer, StreamRefused) and answer.err_code in NOT_THE_LAST:
            return None
        if isinstance(answer, BusUnavailable):
            raise answer
        raise BusUnavailable(f"{subject}: not stored") from answer

    async def get(self, subject: str, *, within: float = 5.0) -> StoredValue | None:
        """Return the last value of `subject`, or `None` if there is none. Raises `BusUnavailable`.

        A replica may answer, and may be behind the leader. `replace` tells for certain, because only the leader accepts it.
        """
        return await self._transport.last(self._stream, subject, within=within)
