"""Small values by subject, shared by all processes of an identity: the stream STATE, written by compare-and-set.

A write names the sequence that it replaces, so that of two processes that write at the same moment one fails. An
identity reads and writes only under `state.<own token>.` (NATS permissions). Values here are not signed: the operator of
the broker can change them, and nats-server answers a client under any reply subject that it names, so that any agent can
have its bytes stored under another's token. A value that would do harm if forged is signed by its writer
(`signed_value`).
"""

from __future__ import annotations

from sealbus.bus.nats.api import EXPECTED_LAST, NOT_THE_LAST
from sealbus.bus.ports import Outgoing, PubAck, StoredValue, StreamRefused, Transport
from sealbus.bus.stream_names import STATE
from sealbus.envelopes.errors import BusUnavailable


class KeyValue:
    """The values on one transport. Every wait ends after `within` seconds, with `BusUnavailable`.

    After `BusUnavailable` from a write it is unknown whether it was stored: read, and write again if it was not.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, subject: str, payload: bytes, *, within: float = 5.0) -> int | None:
        """Store the first value of `subject`; return its sequence, or `None` if the subject holds one already.

        Raises `BusUnavailable`, also if the stream is full or does not exist.
        """
        return await self._write(subject, payload, 0, within)

    async def replace(self, subject: str, payload: bytes, *, last: int, within: float = 5.0) -> int | None:
        """Replace the value with sequence `last`; return the new sequence, or `None` if `last` is no longer current.

        Raises as `create` does.
        """
        return await self._write(subject, payload, last, within)

    async def get(self, subject: str, *, within: float = 5.0) -> StoredValue | None:
        """Return the last value of `subject`, or `None` if there is none. Raises `BusUnavailable`.

        A replica answers, and may be behind: to be certain, write with `replace`, which only the leader accepts.
        """
        return await self._transport.last(STATE, subject, within=within)

    async def _write(self, subject: str, payload: bytes, last: int, within: float) -> int | None:
        outgoing = Outgoing(subject=subject, payload=payload, headers={EXPECTED_LAST: str(last)})
        (answer,) = await self._transport.publish([outgoing], deadline=within)
        if isinstance(answer, PubAck):
            return answer.sequence
        if isinstance(answer, StreamRefused) and answer.err_code in NOT_THE_LAST:
            return None
        if isinstance(answer, BusUnavailable):
            raise answer
        raise BusUnavailable(f"{subject}: not stored") from answer
