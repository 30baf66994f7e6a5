"""Ask the model for a user: `python -m demo.client 'set order 1 to 3'`, with the user's access token in TOKEN."""

import asyncio
import os
import sys

from sealbus import Client

from demo.agent import ask


async def main(text: str) -> None:
    async with Client("web") as client:
        user = await client.user_context(os.environ["TOKEN"])
        handle = await client.submit(ask, text, user=user)
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
