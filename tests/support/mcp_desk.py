"""An edge with an MCP server before agents on a bus in memory, and clients of both generations of the protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
from mcp.client import ClientRequestContext
from mcp.client.client import Client
from mcp.client.extension import ClientExtension, advertise
from mcp.client.streamable_http import streamable_http_client
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import BaseModel
from support.edge import Door, door
from support.engines import ScriptedEngine
from support.issuer import TRUSTS_NOBODY

from sealbus import Agent, Context
from sealbus.agents.edge.mcp.client_request import TASKS
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.runtime.settings.schema import McpTable
from sealbus.agents.sdk.schema import AgentSchema

__all__ = ["GENERATIONS", "Counted", "McpDesk", "Order", "Workshop", "mcp_desk"]

GENERATIONS = ("legacy", LATEST_MODERN_VERSION)


class Order(BaseModel):
    item: str
    count: int = 1


class Counted(BaseModel):
    item: str
    cents: int


@dataclass
class Workshop:
    """An agent with each kind of handler, and what it saw. What is slow waits for `go`; what began is in `begun`."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    canceled: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: list[Context] = field(default_factory=list)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("workshop")

        @self.agent.call("price")
        async def price(body: Order, ctx: Context) -> Counted:
            """Say what an item costs."""
            self.contexts.append(ctx)
            return Counted(item=body.item, cents=7 * body.count)

        @self.agent.call("numbers", chunks=True)
        async def numbers(body: Order, ctx: Context) -> AsyncIterator[int]:
            """Count."""
            for number in range(body.count):
                yield number

        @self.agent.call("broken")
        async def broken(body: Order, ctx: Context) -> Counted:
            raise ValueError("a secret of the handler's")

        @self.agent.call("hang", timeout=20)
        async def hang(body: Order, ctx: Context) -> None:
            await self._slow()

        @self.agent.task("make", retry=0)
        async def make(body: Order, ctx: Context) -> Counted:
            """Make an item."""
            self.contexts.append(ctx)
            await ctx.progress("cutting")
            await self._slow()
            return Counted(item=body.item, cents=body.count)

        @self.agent.task("pieces", retry=0)
        async def pieces(body: Order, ctx: Context) -> AsyncIterator[int]:
            """Make it in pieces."""
            for number in range(body.count):
                yield number

    async def _slow(self) -> None:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.canceled.set()
            raise


@dataclass(kw_only=True)
class McpDesk:
    """The edge, and where its clients come from."""

    door: Door
    questions: list[types.ElicitRequestParams] = field(default_factory=list)
    """What clients were asked."""
    answer: str = "accept"
    """What they answer: `accept`, `decline` or `cancel`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.door.edge.port}/mcp"

    async def _asked(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        self.questions.append(params)
        return types.ElicitResult.model_validate({"action": self.answer, "content": {}})

    @asynccontextmanager
    async def client(
        self,
        mode: str = LATEST_MODERN_VERSION,
        *,
        asks: bool = True,
        extensions: Sequence[ClientExtension] = (),
        **claims: Any,
    ) -> AsyncIterator[Client]:
        """Yield a client of a generation of the protocol that can ask its person, unless told otherwise."""
        async with (
            httpx2.AsyncClient(
                headers=self.door.authorized(**claims), trust_env=False, timeout=60, verify=TRUSTS_NOBODY
            ) as http,
            Client(
                streamable_http_client(self.url, http_client=http),
                mode=mode,
                elicitation_callback=self._asked if asks else None,
                extensions=list(extensions) or None,
                cache=None,
            ) as client,
        ):
            yield client

    async def post(
        self, method: str, params: Mapping[str, Any] | None = None, *, tasks: bool = False, **claims: Any
    ) -> httpx2.Response:
        """Send one request of the protocol without sessions, written here."""
        told: dict[str, Any] = {"io.modelcontextprotocol/protocolVersion": LATEST_MODERN_VERSION}
        told["io.modelcontextprotocol/clientInfo"] = {"name": "test", "version": "1"}
        told["io.modelcontextprotocol/clientCapabilities"] = {"extensions": {TASKS: {}}} if tasks else {}
        said = {"_meta": told, **(params or {})}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": said}
        fields = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": LATEST_MODERN_VERSION,
            "mcp-method": method,
        }
        if "name" in said:
            fields["mcp-name"] = said["name"]
        return await self.door.post("/mcp", message, headers=fields, **claims)

    async def result(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Return the result of such a request."""
        found: dict[str, Any] = self.told(await self.post(method, params, **options))["result"]
        return found

    async def error(self, method: str, params: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Return the error of such a request."""
        found: dict[str, Any] = self.told(await self.post(method, params, **options))["error"]
        return found

    @staticmethod
    def told(answer: httpx2.Response) -> dict[str, Any]:
        """Return the last message of an answer."""
        if answer.headers["content-type"].startswith("application/json"):
            found = answer.json()
        else:
            [*_, last] = [line[5:] for line in answer.text.splitlines() if line.startswith("data:")]
            found = json.loads(last)
        assert isinstance(found, dict)
        return found


TASKS_EXTENSION = advertise(TASKS)


@asynccontextmanager
async def mcp_desk(
    folder: Path,
    *agents: Agent,
    engine: ScriptedEngine | None = None,
    table: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[McpDesk]:
    """Run `agents` behind an edge whose tools are all their actions; `table` changes `[edge.mcp]`."""
    files = []
    for agent in agents:
        file = folder / f"{agent.name}.json"
        file.write_text(AgentSchema.of(agent).text(), encoding="utf-8")
        files.append(file)
    key = folder / "state.key"
    if not key.exists():
        write_key(key)
    actions = tuple(f"{agent.name}.*" for agent in agents)
    said: dict[str, Any] = {"actions": actions, "state_keys": (key,), **(table or {})}
    async with door(
        *agents, engine=engine, actions=actions, schemas=tuple(files), mcp=McpTable(**said), **options
    ) as running:
        yield McpDesk(door=running)
