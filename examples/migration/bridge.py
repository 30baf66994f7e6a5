"""Step 2: what old senders send to the old server is submitted under the bridge's own identity, until the last of them is gone.

The policy says what the bridge may do, which is what nobody in particular may do. Its records show who still sends the old way.
"""

import asyncio

import nats
from nats.aio.msg import Msg
from pydantic import ValidationError
from sealbus import Client, SealbusError

from stock import Update, update_unattended

WAITING = 100
"""Most messages that wait here; NATS drops what comes on top, and the old sender gets no answer, as from a slow worker."""


async def main(server: str, stop: asyncio.Event, client: Client) -> None:
    """Submit what comes until told to stop, and answer once it is done."""

    async def forward(message: Msg) -> None:
        try:
            handle = await client.submit(update_unattended, Update.model_validate_json(message.data))
            await handle.result()
        except (ValidationError, SealbusError) as error:
            await message.respond(f"refused: {getattr(error, 'code', 'bad_body')}".encode())
        else:
            await message.respond(b"ok")

    async with await nats.connect(server) as connection:
        await connection.subscribe("stock.update", queue="stock", cb=forward, pending_msgs_limit=WAITING)
        await stop.wait()
