"""Whether nats-server's answers to a workload are stored: whether it is in the account that has the streams.

nats-server does not check whether a client may publish to the reply subject of its request. In the account that has the
streams it therefore stores its answers wherever a stream listens, also in the places of others (SECURITY.md).
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

    Asks a question whose answer is to go to a new place of the workload's own in STATE, and looks there for `within` seconds.
    An answer that is stored, a few hundred bytes, stays for a day. Needs no more permissions than an agent has. Raises
    `BusUnavailable`.
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
