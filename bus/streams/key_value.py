"""Small values by subject, each held once for all processes of an identity: the stream STATE, written by comparison.

What is written names the sequence that it replaces, so that of two processes that write at the same moment one is told.
An identity reads and writes under `state.<own token>.` only (NATS permissions). Values are not signed by being here:
whoever runs the broker can change them, and nats-server answers a client under whatever reply subject it names, so that
any agent can have bytes of its own stored under another's token. What would do harm if it were forged is signed by its
writer (`signed_value`).
"""

from __future__ import annotations

from sealbus.bus.nats.api import EXPECTED_LAST, NOT_THE_LAST
from sealbus.bus.ports import Outgoing, PubAck, StreamRefused, Transport
from sealbus.bus.stream_names import STATE
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["KeyValue"]


class KeyValue:
    """Values on one transport. Every wait ends after `within` seconds, with `BusUnavailable`.

    After `BusUnavailable` from a write nobody knows whether it was stored: read, and write again if it was not.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(self, subject: str, payload: bytes, *, within: float = 5.0) -> int | None:
        """Store the first value of `subject`; return its sequence, or `None` if the subject holds one already.

        Raises `BusUnavailable`, as well where the stream is full or does not exist.
        """
        return await self._write(subject, payload, 0, within)

    async def replace(self, subject: str, payload: bytes, *, last: int, within: float = 5.0) -> int | None:
        """Store a value in place of the one with sequence `last`; return the new sequence, or `None` if that is gone.

        Raises as `create` does.
        """
        return await self._write(subject, payload, last, within)

    async def get(self, subject: str, *, within: float = 5.0) -> tuple[int, bytes] | None:
        """Return the last value of `subject` with its sequence, or `None` if there is none. Raises `BusUnavailable`.

        A replica answers, and may be behind: what must be true is written with `replace`, which only the leader takes.
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
