"""What an agent takes and gives, written where its code is and read where it is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from sealbus import Agent, Context
from sealbus.agents.examples import inventory, planner, pricing
from sealbus.agents.sdk.schema import SCHEMA_BYTES, AgentSchema, reachable
from sealbus.envelopes.errors import ConfigurationError


class Cat(BaseModel):
    kind: Literal["cat"]
    kittens: list[Cat] = []


class Dog(BaseModel):
    kind: Literal["dog"]


class Visit(BaseModel):
    animal: Cat | Dog = Field(discriminator="kind")


class Bill(BaseModel):
    cents: int = 0


class Rate(BaseModel):
    exact: Decimal


clinic = Agent("clinic")


@clinic.task("visit", status=False)
async def visit(body: Visit, ctx: Context) -> Bill:
    """Look   at an animal.

    And more of it.
    """
    return Bill()


@clinic.call("visit")
async def ask(body: Visit, ctx: Context) -> Bill:
    return Bill()


@clinic.call("noise")
async def noise(body: bytes, ctx: Context) -> AsyncIterator[bytes]:
    """Make a noise."""
    yield body


@clinic.on("event.inventory.updated")
async def heard(body: Bill, ctx: Context) -> None:
    """Not asked for by anybody."""


@clinic.on("clinic.own")
async def own(body: Bill, ctx: Context) -> None:
    """Of a kind that only settings know."""


WRITTEN: dict[str, Any] = json.loads(AgentSchema.of(clinic).text())


GOOD = json.dumps(WRITTEN).encode()


def changed(**changes: Any) -> bytes:
    return json.dumps({**WRITTEN, **changes}).encode()


def action(**changes: Any) -> dict[str, Any]:
    return {**WRITTEN["actions"][1], **changes}


def test_an_agents_tasks_and_calls_are_described() -> None:
    found = {(one["kind"], one["verb"]): one for one in WRITTEN["actions"]}
    assert found.keys() == {("task", "visit"), ("call", "visit"), ("call", "noise")}
    told = found["task", "visit"]
    assert (told["summary"], told["parts"], told["gives"]) == ("Look at an animal.", False, {})
    assert told["takes"] == {"application/json": {"$ref": "#/components/schemas/clinic.Visit"}}
    asked = found["call", "visit"]
    assert (asked["summary"], asked["gives"]) == (
        "",
        {"application/json": {"$ref": "#/components/schemas/clinic.Bill"}},
    )
    made = found["call", "noise"]
    assert (made["takes"], made["gives"], made["parts"]) == (
        {"application/octet-stream": {}},
        {"application/octet-stream": {}},
        True,
    )
    assert WRITTEN["models"].keys() == {"clinic.Visit", "clinic.Cat", "clinic.Dog", "clinic.Bill"}


@pytest.mark.parametrize("agent", [clinic, inventory.agent, planner.agent, pricing.agent])
def test_what_is_written_is_read_as_the_same(agent: Agent) -> None:
    schema = AgentSchema.of(agent)
    assert AgentSchema.parse(schema.text().encode()) == schema


def test_what_is_taken_and_what_is_given_of_one_model_may_differ() -> None:
    agent = Agent("both")

    @agent.call("same")
    async def same(body: Rate, ctx: Context) -> Rate:
        return body

    (one,) = AgentSchema.of(agent).actions
    models = AgentSchema.of(agent).models
    takes, gives = (one.takes["application/json"]["$ref"], one.gives["application/json"]["$ref"])
    assert takes != gives
    taken, given_ = (models[one.removeprefix("#/components/schemas/")]["properties"]["exact"] for one in (takes, gives))
    assert {one["type"] for one in taken["anyOf"]} == {"number", "string"}
    assert given_["type"] == "string"


def test_a_type_without_a_schema_is_told_in_one_line() -> None:
    agent = Agent("odd")

    class Odd(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        thing: Agent

    async def odd(body: Any, ctx: Context) -> None:
        raise AssertionError

    odd.__annotations__.update(body=Odd)
    agent.call("odd")(odd)
    with pytest.raises(ConfigurationError, match="agent odd: ") as caught:
        AgentSchema.of(agent)
    assert caught.value.detail.isprintable()


def test_what_is_referred_to_comes_along_also_through_others_and_nothing_else() -> None:
    models = AgentSchema.of(clinic).models
    visit_ = {"$ref": "#/components/schemas/clinic.Visit"}
    assert reachable([visit_], models).keys() == {"clinic.Visit", "clinic.Cat", "clinic.Dog"}
    assert reachable([[{"items": {"$ref": "#/components/schemas/clinic.Bill"}}]], models).keys() == {"clinic.Bill"}
    assert reachable([], models) == {}


LEADS_OUT: list[dict[str, Any]] = [
    {"$ref": "#/components/schemas/clinic.None"},
    {"$ref": "https://example.org/model.json"},
    {"$ref": "#/$defs/Visit"},
    {"$ref": "clinic.Visit"},
    {"$id": "clinic.Visit"},
    {"$dynamicRef": "clinic.Visit"},
    {"allOf": [{"properties": {"x": {"$ref": "#/components/schemas/Problem"}}}]},
    {"discriminator": {"mapping": {"a": "#/components/schemas/other.A"}}},
]


@pytest.mark.parametrize("schema", LEADS_OUT)
def test_a_reference_that_leads_out_of_the_file_is_refused(schema: dict[str, Any]) -> None:
    places = (
        changed(models={**WRITTEN["models"], "clinic.X": schema}),
        changed(actions=[action(takes={"application/json": schema})]),
        changed(actions=[action(gives={"application/json": schema})]),
    )
    for data in places:
        with pytest.raises(ConfigurationError, match="a reference leads out of the file"):
            AgentSchema.parse(data)


def test_a_property_may_be_called_as_a_reference_is() -> None:
    schema = {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}}
    AgentSchema.parse(changed(models={**WRITTEN["models"], "clinic.X": schema}))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b'{"agent": "a", "agent": "b"}', "each name once"),
        (b"[" * 100_000, "at most 64 deep"),
        (changed(models={"clinic.X": json.loads("[" * 70 + "]" * 70)}), "at most 64 deep"),
        (b" " * (SCHEMA_BYTES + 1), "over 1048576 bytes"),
        (changed(models={"clinic.X": {"maximum": float("inf")}}), "not a JSON object"),
        (
            changed(models={"clinic.X": {"maximum": 1}}).replace(b'"maximum": 1', b'"maximum": 1e999'),
            "not a JSON object",
        ),
        (changed(models={"clinic.X": {"title": "\ud800"}}), "not a JSON object"),
        (changed(agent="a.b"), "agent: must be letters"),
        (changed(agent=""), "agent: must be letters"),
        (changed(agent=None), "agent: "),
        (changed(agent="other"), "names must begin with other."),
        (changed(further=1), "further: "),
        (changed(**{"fur\u001b[2Jther": 1}), "fur\\x1b[2Jther: "),
        (changed(models={"Problem": {}}), "names must begin with clinic."),
        (changed(models={"clinic.X Y": {}}), "models"),
        (changed(models={"clinic.X": True}), "models"),
        (changed(actions={}), "actions: "),
        (changed(actions=[action(), action()]), "an action is there twice"),
        (changed(actions=[action(kind="event")]), "actions.0.kind: "),
        (changed(actions=[action(verb="*")]), "actions.0.verb: must be letters"),
        (changed(actions=[action(verb="a/../b")]), "actions.0.verb: must be letters"),
        (changed(actions=[action(verb="_cancel")]), "actions.0.verb: must be letters"),
        (changed(actions=[action(summary="a\nb")]), "actions.0.summary: must be one line"),
        (changed(actions=[action(summary="x" * 201)]), "actions.0.summary: "),
        (changed(actions=[action(takes={})]), "actions.0.takes: "),
        (
            changed(actions=[action(takes={"application/json": {}, "application/octet-stream": {}})]),
            "actions.0.takes: ",
        ),
        (changed(actions=[action(takes={"text/html": {}})]), "must be application/json or"),
        (changed(actions=[action(gives={"application/json": []})]), "actions.0.gives"),
        (changed(actions=[action(parts="yes")]), "actions.0.parts: "),
        (changed(actions=[{key: value for key, value in action().items() if key != "parts"}]), "actions.0.parts: "),
    ],
)
def test_a_file_of_anything_else_is_refused_in_one_line(data: bytes, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AgentSchema.parse(data)
    assert complaint in caught.value.detail
    assert "\n" not in caught.value.detail


@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.binary(max_size=4))
def test_whatever_is_cut_out_or_put_in_it_is_schemas_or_refused(start: int, length: int, put: bytes) -> None:
    with suppress(ConfigurationError):
        assert AgentSchema.parse(GOOD[:start] + put + GOOD[start + length :]).agent
