"""The whole A2A server of an edge: its routes, for as long as its block lasts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from starlette.routing import BaseRoute, Route

from sealbus.agents.edge.a2a.cards import CardKey, Cards
from sealbus.agents.edge.a2a.endpoint import A2aEndpoint, ServedAgent
from sealbus.agents.edge.a2a.handler import AgentHandler
from sealbus.agents.edge.a2a.kept_tasks import KeptTasks
from sealbus.agents.edge.a2a.messages import Skills
from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.app import Methods
from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.edge.foreign_logs import quieten

__all__ = ["open_a2a"]

_AGENT: Final = "/a2a/{agent}"
_REST: Final = _AGENT + "/v1"


@asynccontextmanager
async def open_a2a(
    actions: Actions,
    agents: Mapping[str, Sequence[DescribedAction]],
    *,
    origin: str,
    key: CardKey | None = None,
    page: str | None = None,
) -> AsyncGenerator[Sequence[BaseRoute], None]:
    """Yield the routes of an A2A server for `agents`, whose cards are below `origin`, signed by `key`.

    `page` is where people approve.
    """
    quieten("a2a")
    front = actions.front
    kept = KeptTasks(front.node, actions.tasks.owners)
    said = page or f"{front.resource} with a login of their own, by `sealbus approvals`"
    served = {}
    for name, described in agents.items():
        cards = Cards(name, Skills(described), f"{origin}/a2a/{name}", front.resource, key=key)
        served[name] = ServedAgent.of(AgentHandler(actions, cards, kept, said), cards)
    scopes = {one.scope for described in agents.values() for one in described} - {""}
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
