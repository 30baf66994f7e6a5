"""Tests whether nats-server stores its answers to a workload, as it does in the account that has the streams.

nats-server does not check whether a client may publish to the reply subject of its request. In the account that has the
streams, its answers are therefore stored wherever a stream listens, also under subjects of other agents (SECURITY.md).
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.frames import publish_frame
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.bus.streams.key_value import KeyValue

_QUESTION: Final = Outgoing(subject="$JS.API.STREAM.NAMES", payload=b"")
_PLACE_BYTES: Final = 16
_LOOK_EVERY: Final = 0.1


async def stores_answers(connection: Connection, token: str, *, within: float = 1.0) -> bool:
    """Return whether the server stores its answers to the workload with this token.

    Sends a request whose reply subject is a new key of the workload in STATE, and looks there for `within` seconds. A stored
    answer, a few hundred bytes, stays for a day. Needs no more permissions than an agent has. Raises `BusUnavailable`.
    """
    place = f"state.{token}.answer.{secrets.token_hex(_PLACE_BYTES)}"
    link = await connection.ready(within)
    link.write(publish_frame(_QUESTION, reply=place))
    values, clock = KeyValue(NatsTransport(connection)), asyncio.get_running_loop().time
    until = clock() + within
    while await values.get(place) is None:
        if clock() >= until:
            return False
        await asyncio.sleep(_LOOK_EVERY)
    return True
