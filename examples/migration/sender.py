"""Step 3: a sender of the new kind acts for a user. When the last one has moved, the bridge and its grant are deleted."""

from sealbus import Client
from sealbus.envelopes.message.wire import Statement

from stock import Update, update


async def send(client: Client, user: Statement, item_id: str, quantity: int) -> int:
    """Set the stock of an item for `user`."""
    handle = await client.submit(update, Update(item_id=item_id, quantity=quantity), user=user)
    return await handle.result()
