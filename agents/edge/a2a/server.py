"""Open the A2A server of an edge and yield its routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

from starlette.routing import BaseRoute, Route

from sealbus.agents.edge.a2a.cards import CardKey, Cards
from sealbus.agents.edge.a2a.endpoint import A2aEndpoint, ServedAgent
from sealbus.agents.edge.a2a.grpc_server import Grpc, serving_grpc
from sealbus.agents.edge.a2a.handler import AgentHandler
from sealbus.agents.edge.a2a.kept_tasks import KeptTasks
from sealbus.agents.edge.a2a.messages import Skills
from sealbus.agents.edge.a2a.push import pushing
from sealbus.agents.edge.a2a.webhook import Webhooks
from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.edge.foreign_logs import quieten
from sealbus.agents.edge.http.application import Methods

_AGENT: Final = "/a2a/{agent}"
_REST: Final = _AGENT + "/v1"


class Push(NamedTuple):
    """Push notifications: the `key` that encrypts stored webhooks, and the rules for their addresses."""

    key: bytes
    webhooks: Webhooks


@asynccontextmanager
async def open_a2a(
    actions: Actions,
    agents: Mapping[str, Sequence[DescribedAction]],
    *,
    origin: str,
    key: CardKey | None = None,
    page: str | None = None,
    grpc: Grpc | None = None,
    push: Push | None = None,
) -> AsyncGenerator[Sequence[BaseRoute], None]:
    """Yield the routes of an A2A server for `agents`, whose cards are below `origin`, signed by `key`.

    `page` is the place where people approve. With `grpc` the same agents are also served over gRPC; with `push` clients can
    register webhooks. Raises `ConfigurationError` if the gRPC address cannot be used.
    """
    quieten("a2a")
    front = actions.front
    kept_tasks = KeptTasks(front.node, actions.tasks.owners)
    approval_page = page or f"{front.resource} with a login of their own, by `sealbus approvals`"
    scopes = {action.scope for described in agents.values() for action in described} - {""}
    grpc_url = grpc.shown if grpc is not None else None
    served = {}
    async with AsyncExitStack() as stack:
        pushes = None
        if push is not None:
            pushes = await stack.enter_async_context(pushing(front, push.key, push.webhooks, approval_page))
        for name, described in agents.items():
            url = f"{origin}/a2a/{name}"
            cards = Cards(name, Skills(described), url, front.resource, grpc_url, push=pushes is not None, key=key)
            served[name] = ServedAgent.of(AgentHandler(actions, cards, kept_tasks, approval_page, pushes), cards)
        if grpc is not None:
            handlers = {name: agent.handler for name, agent in served.items()}
            await stack.enter_async_context(serving_grpc(actions, handlers, grpc))
        yield _routes(A2aEndpoint(actions, served, " ".join(sorted(scopes))))


def _routes(endpoint: A2aEndpoint) -> list[Route]:
    rest = endpoint.rest
    subscribe = rest("on_subscribe_to_task", streaming=True)
    configs = "/tasks/{id}/pushNotificationConfigs"
    return [
        Route(_AGENT + "/.well-known/agent-card.json", Methods(GET=endpoint.card)),
        Route(_AGENT + "/rpc", Methods(POST=endpoint.rpc)),
        Route(_REST + "/message:send", Methods(POST=rest("on_message_send", reads=True))),
        Route(_REST + "/message:stream", Methods(POST=rest("on_message_send_stream", reads=True, streaming=True))),
        Route(_REST + "/tasks/{id}:cancel", Methods(POST=rest("on_cancel_task"))),
        Route(_REST + "/tasks/{id}:subscribe", Methods(GET=subscribe, POST=subscribe)),
        Route(_REST + "/tasks/{id}", Methods(GET=rest("on_get_task"))),
        Route(_REST + "/tasks", Methods(GET=rest("list_tasks"))),
        Route(
            _REST + configs,
            Methods(GET=rest("list_push_notifications"), POST=rest("set_push_notification", reads=True)),
        ),
        Route(
            _REST + configs + "/{push_id}",
            Methods(GET=rest("get_push_notification"), DELETE=rest("delete_push_notification")),
        ),
        Route(_REST + "/extendedAgentCard", Methods(GET=rest("handle_authenticated_agent_card"))),
    ]
