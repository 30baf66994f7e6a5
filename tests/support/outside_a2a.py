"""An A2A agent of somebody else's on loopback, made with the package `a2a`, whose card says what a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Part
from a2a.utils.errors import TaskNotCancelableError
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.bus.telemetry import Counters

__all__ = ["CARD", "OutsideAgent", "outside_agent"]

CARD = "/.well-known/agent-card.json"


@dataclass
class OutsideAgent(AgentExecutor):
    """The agent, and what it was told. Its card says that it is somewhere else, and `says`."""

    says: str = "Answers questions."
    answers: str = "42"
    bindings: tuple[str, ...] = ("JSONRPC",)
    told: list[str] = field(default_factory=list)
    url: str = ""

    def card(self) -> AgentCard:
        there = [
            AgentInterface(url="https://elsewhere.example/rpc", protocol_binding=one, protocol_version="1.0")
            for one in self.bindings
        ]
        return AgentCard(
            name="partner",
            description=self.says,
            version="1",
            supported_interfaces=there,
            capabilities=AgentCapabilities(streaming=True),
            default_input_modes=["text/plain"],
            default_output_modes=["text/plain"],
        )

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        self.told.append(context.get_user_input())
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.add_artifact([Part(text=self.answers)])
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise TaskNotCancelableError

    async def shown(self, request: Request) -> JSONResponse:
        return JSONResponse(MessageToDict(self.card()))


@asynccontextmanager
async def outside_agent(agent: OutsideAgent | None = None) -> AsyncIterator[OutsideAgent]:
    """Run an agent; its requests go to `/rpc`."""
    agent = agent or OutsideAgent()
    handler = DefaultRequestHandler(agent_executor=agent, task_store=InMemoryTaskStore(), agent_card=agent.card())
    app = Starlette(routes=[*create_jsonrpc_routes(handler, "/rpc"), Route(CARD, agent.shown)])
    limits = ConnectionLimits()
    async with listening(app, "127.0.0.1:0", setting="test", limits=limits, counters=Counters()) as port:
        agent.url = f"http://localhost:{port}"
        yield agent
