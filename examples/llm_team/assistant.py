"""Somebody's own assistant, no agent of ours: a model whose tools are the team's, over MCP, for whoever is logged in.

TOKEN=$(sealbus token --user bob) python assistant.py http://127.0.0.1:8080/mcp 'what about order 7?'
"""

import asyncio
import os
import sys

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent
from mcp_types import Tool as Shown
from pydantic_ai import Agent as Model
from pydantic_ai import Tool

from desk.offline import offline


async def answer(url: str, token: str, text: str) -> str:
    """Ask the model."""
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(url, http_client=http)) as team,
    ):
        tools = [tool(team, shown) for shown in (await team.list_tools()).tools]
        return (await Model(offline, tools=tools).run(text)).output


def tool(team: Client, shown: Shown) -> Tool[None]:
    """Return a tool of the team as one of the model."""

    async def use(**arguments: object) -> str:
        given = await team.call_tool(shown.name, arguments)
        return " ".join(one.text for one in given.content if isinstance(one, TextContent))

    return Tool.from_schema(use, shown.name, shown.description, shown.input_schema)


if __name__ == "__main__":
    print(asyncio.run(answer(sys.argv[1], os.environ["TOKEN"], sys.argv[2])))
