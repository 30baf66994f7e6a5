"""Read a stream backwards for a waiting operator: the newest messages first, in bounded memory and with a deadline.

JetStream's consumers read forward only. So a stream is read in windows of sequences, the last window first. While a window
lasts, only the value that the reader makes of each message is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

from sealbus.bus.ports import Delivery, Transport
from sealbus.envelopes.errors import BusUnavailable

Kept = TypeVar("Kept")

WINDOW: Final = 2_000
"""Sequences in one window. Each window costs a consumer, and up to two batches that are read in vain."""


ANSWER_WITHIN: Final = 20.0
"""Seconds without a message after which the reader gives up. `Transport.read` itself would try again without end."""


async def read_on(
    transport: Transport, stream: str, subjects: Sequence[str], *, start: int = 1, since: int = 0
) -> AsyncGenerator[Delivery, None]:
    """Yield the messages that `stream` holds on `subjects` now, from sequence `start` or stored time `since` on.

    Raises `BusUnavailable` if nothing comes for `ANSWER_WITHIN` seconds; otherwise as `Transport.read`.
    """
    async with aclosing(transport.read(stream, subjects, start=start, since=since)) as batches:
        while True:
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    batch = await anext(batches, None)
            except TimeoutError as error:
                raise BusUnavailable(
                    f"{stream} cannot be read: no answer within {ANSWER_WITHIN:g} s. May this identity read it?"
                ) from error
            if batch is None:
                return
            for delivery in batch:
                yield delivery


async def backwards(
    transport: Transport,
    stream: str,
    subjects: Sequence[str],
    *,
    first: int,
    last: int,
    keep: Callable[[Delivery], Kept],
    window: int = WINDOW,
) -> AsyncGenerator[list[Kept], None]:
    """Yield the values that `keep` makes of the messages on `subjects`, from sequence `last` down to `first`.

    Yields one list for each window with messages: the newest window first, each list in stream order. Raises as `read_on`.
    """
    end = last
    while end >= first:
        begin = max(first, end - window + 1)
        messages: list[Kept] = []
        async with aclosing(read_on(transport, stream, subjects, start=begin)) as deliveries:
            async for delivery in deliveries:
                if delivery.sequence <= end:
                    messages.append(keep(delivery))
                if delivery.sequence >= end:
                    break
        if messages:
            yield messages
        end = begin - 1
