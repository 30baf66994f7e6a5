"""Read item 42 as a program that speaks MCP does: `python assistant.py alice`."""

import asyncio
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client


async def main(user: str) -> None:
    server = StdioServerParameters(command="sealbus", args=["mcp", "--user", user])
    async with Client(stdio_client(server)) as client:
        print("tools:", *(tool.name for tool in (await client.list_tools()).tools))
        answer = await client.call_tool("inventory_read", {"item_id": "42", "quantity": 0})
        print(answer.structured_content or answer.content[0].text)


asyncio.run(main(sys.argv[1]))
