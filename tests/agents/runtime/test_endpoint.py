"""Routes of an agent's handlers: which subjects, which kind, which action, and what cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import pytest
from pydantic import BaseModel

from sealbus import Agent, Context, Resource
from sealbus.agents.runtime.endpoint import HandlerEndpoint, routes_of
from sealbus.agents.sdk.sender import Sender
from sealbus.bus.routing.routes import Route
from sealbus.envelopes.errors import BadBody, ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject, own_subjects
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.decision.request import NO_RESOURCE
from sealbus.policies.decision.request import Resource as ResourceInput

NAMES = Names(TrustDomain("example.org"))
NOT_SENDING = cast("Sender", None)  # nothing here sends


class Item(BaseModel):
    name: str
    count: int = 1


def own(subject: str, kind: Kind, owner: str = "stock", action: str = "") -> OwnSubject:
    return OwnSubject(subject=subject, kind=kind, owner=NAMES.id_of(owner), action=action or subject)


def routes(agent: Agent, *declared: OwnSubject) -> list[Route]:
    return routes_of(agent, sending=NOT_SENDING, names=NAMES, own_subjects=own_subjects(*declared))


def stock(subject: str, *, action: str | None = None, chunks: bool = False) -> Agent:
    agent = Agent("stock")
    if chunks:

        @agent.on(subject, action=action)
        async def many(body: Item, ctx: Context) -> AsyncIterator[int]:
            yield body.count

    else:

        @agent.on(subject, action=action)
        async def one(body: Item, ctx: Context) -> None: ...

    return agent


def test_the_scheme_gives_each_kind_its_subjects() -> None:
    agent = Agent("stock")

    @agent.task("move")
    async def move(body: Item, ctx: Context) -> None: ...

    @agent.call("count")
    async def count(body: Item, ctx: Context) -> int:
        return body.count

    @agent.on("event.pricing.changed")
    async def changed(body: Item, ctx: Context) -> None: ...

    assert [(one.kind, one.subject, one.action) for one in routes(agent)] == [
        (Kind.TASK, "task.stock.move", "stock.move"),
        (Kind.TASK, "task.stock.move.*", "stock.move"),
        (Kind.CALL, "call.stock.count", "stock.count"),
        (Kind.EVENT, "event.pricing.changed", "pricing.changed"),
    ]


@pytest.mark.parametrize("kind", [Kind.TASK, Kind.CALL, Kind.EVENT])
def test_an_own_subject_is_what_the_settings_say(kind: Kind) -> None:
    (route,) = routes(stock("orders.created"), own("orders.created", kind, action="orders.take"))
    assert (route.kind, route.subject, route.action) == (kind, "orders.created", "orders.take")


def test_an_event_of_another_emitter_is_handled() -> None:
    (route,) = routes(stock("orders.created"), own("orders.created", Kind.EVENT, owner="shop"))
    assert route.kind is Kind.EVENT


@pytest.mark.parametrize(
    ("agent", "declared", "says"),
    [
        (stock("orders.created"), [], "declare it under"),
        (stock("orders.created"), [own("orders.gone", Kind.TASK)], "declare it under"),
        (stock("orders.created"), [own("orders.created", Kind.TASK, owner="shop")], "only its owner"),
        (stock("orders.created"), [own("orders.created", Kind.CALL, owner="shop")], "only its owner"),
        (stock("orders.created", action="stock.x"), [own("orders.created", Kind.TASK)], "says action stock.x"),
        (stock("orders.created", chunks=True), [own("orders.created", Kind.EVENT)], "an event is not answered"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(agent: Agent, declared: list[OwnSubject], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        routes(agent, *declared)


async def test_an_endpoint_decodes_declares_and_loads() -> None:
    agent = Agent("stock")

    async def shelf(body: Item) -> Resource:
        return Resource("shelf", body.name, owner="alice")

    @agent.task("move", resource=shelf, facts=["count"])
    async def move(body: Item, ctx: Context) -> None: ...

    @agent.task("drop")
    async def drop(body: Item, ctx: Context) -> None: ...

    moving, dropping = (
        HandlerEndpoint(agent.handlers[f"task.stock.{verb}"], NOT_SENDING, Kind.TASK) for verb in ("move", "drop")
    )
    value = moving.decode(b'{"name": "a", "count": 2}', "application/json")
    assert value == Item(name="a", count=2)
    assert moving.properties(value) == {"count": 2}
    assert dropping.properties(value) == {}
    assert await moving.resource(value) == ResourceInput(type="shelf", id="a", properties={"owner": "alice"})
    assert await dropping.resource(value) == NO_RESOURCE
    with pytest.raises(BadBody):
        moving.decode(b'{"nothing": "fits"}', "application/json")


def test_what_a_handler_says_about_once_and_statuses_reaches_its_routes() -> None:
    agent = Agent("stock")

    @agent.task("move", once=True, status=False)
    async def move(body: Item, ctx: Context) -> None: ...

    @agent.task("count")
    async def count(body: Item, ctx: Context) -> None: ...

    @agent.on("event.shop.sold", once=True)
    async def sold(body: Item, ctx: Context) -> None: ...

    said = {route.subject: (route.options.once, route.options.status) for route in routes(agent)}
    assert said["task.stock.move"] == said["task.stock.move.*"] == (True, False)
    assert said["task.stock.count"] == (False, True)
    assert said["event.shop.sold"] == (True, True)


def test_a_call_cannot_be_declared_once() -> None:
    agent = Agent("stock")

    @agent.on("shop.ask", once=True)
    async def ask(body: Item, ctx: Context) -> int:
        return 1

    with pytest.raises(ConfigurationError, match="never delivered again"):
        routes(agent, own("shop.ask", Kind.CALL))
    assert routes(agent, own("shop.ask", Kind.TASK))[0].options.once
