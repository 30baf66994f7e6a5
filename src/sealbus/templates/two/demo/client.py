"""Double an order for a user: `python -m demo.client 1`, with the user's access token in TOKEN."""

import asyncio
import os
import sys

from sealbus import Client

from demo.agent import Double, double


async def main(order_id: str) -> None:
    async with Client("web") as client:
        user = await client.user_context(os.environ["TOKEN"])
        handle = await client.submit(double, Double(order_id=order_id), user=user)
        print("doubled:", await handle.result())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
