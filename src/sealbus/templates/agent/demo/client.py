"""Change an order for a user: `python -m demo.client 1 3`, with the user's access token in TOKEN."""

import asyncio
import os
import sys

from sealbus import Client

from demo.agent import Order, change, read


async def main(order_id: str, quantity: int) -> None:
    async with Client("web") as client:
        user = await client.user_context(os.environ["TOKEN"])
        handle = await client.submit(change, Order(order_id=order_id, quantity=quantity), user=user)
        print("changed:", await handle.result())
        print("now:", await client.call(read, Order(order_id=order_id), user=user))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
