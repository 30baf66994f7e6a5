"""Reading the last message of one subject by itself: JetStream's direct get, which permissions can hold to a subject."""

from __future__ import annotations

import asyncio

from sealbus.bus.connection import Connection
from sealbus.bus.frames import check_subject, header_value, status_of
from sealbus.bus.request import ask
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["last"]

_NOT_FOUND = 404


async def last(connection: Connection, stream: str, subject: str, *, within: float) -> tuple[int, bytes] | None:
    """Return sequence and payload of the last message of `subject` in `stream`, or `None` if there is none.

    Any replica may answer, one that is a little behind, too. Raises `BusUnavailable` if no answer comes in `within`
    seconds, `ConfigurationError` for no valid subject.
    """
    check_subject(subject)
    api = f"$JS.API.DIRECT.GET.{stream}.{subject}"
    until = asyncio.get_running_loop().time() + within
    link = await connection.ready(within)
    answer = await ask(link, api, b"", deadline=max(0.0, until - asyncio.get_running_loop().time()))
    status, text = status_of(answer.header_block)
    if status == _NOT_FOUND:
        return None
    if status:
        raise BusUnavailable(f"{subject}: {status} {text}")
    sequence = header_value(answer.header_block, "Nats-Sequence")
    if header_value(answer.header_block, "Nats-Subject") != subject or not sequence.isdecimal():
        raise BusUnavailable(f"{subject}: the answer is not a message of this subject")
    return int(sequence), answer.payload
