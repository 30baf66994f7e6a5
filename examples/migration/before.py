"""Where it begins: stock on plain NATS. Whoever reaches the server can send this, and nobody knows afterwards who did."""

import asyncio
import json

import nats
from nats.aio.msg import Msg

STOCK: dict[str, int] = {"42": 10}


async def update(message: Msg) -> None:
    """Set the stock of an item, and answer."""
    body = json.loads(message.data)
    STOCK[body["item_id"]] = body["quantity"]
    await message.respond(b"ok")


async def main(server: str, stop: asyncio.Event) -> None:
    """Handle updates until told to stop."""
    async with await nats.connect(server) as connection:
        await connection.subscribe("stock.update", queue="stock", cb=update)
        await stop.wait()
