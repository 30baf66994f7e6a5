"""What other protocols are shown of actions: schemas that stand by themselves, and what is taken and given as objects."""

from __future__ import annotations

import json

import jsonschema
import pytest
from pydantic import BaseModel

from sealbus.agents.edge.described_actions import DescribedAction, described_actions
from sealbus.agents.edge.front import Exposed
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.bodies import JSON, OCTETS
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.bus.sending.message import Content
from sealbus.envelopes.errors import Code, ConfigurationError, HandlingError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))


class Item(BaseModel):
    id: int
    parts: list[Item] = []


class Order(BaseModel):
    items: list[Item]


class Ordered(BaseModel):
    number: int


agent = Agent("shop")


@agent.task("order")
async def order(body: Order, ctx: object) -> Ordered:
    """Order what is listed.

    And more, which is not shown.
    """
    raise NotImplementedError


@agent.call("tree")
async def tree(body: Item, ctx: object) -> list[int]:
    """Count."""
    raise NotImplementedError


@agent.call("price")
async def price(body: int, ctx: object) -> int:
    """Price one."""
    raise NotImplementedError


@agent.call("photo")
async def photo(body: bytes, ctx: object) -> bytes:
    """Take bytes, which no argument holds."""
    raise NotImplementedError


SCHEMAS = (AgentSchema.parse(AgentSchema.of(agent).text().encode()),)


def described(*patterns: str, **scopes: str) -> dict[str, DescribedAction]:
    exposed = Exposed(["shop.*"], NAMES)
    found = described_actions(
        patterns, SCHEMAS, exposed, scopes={key.replace("_", "."): one for key, one in scopes.items()}, setting="here"
    )
    return {one.name: one for one in found}


def test_all_verbs_of_an_agent_but_those_of_bytes() -> None:
    assert list(described("shop.*")) == ["shop.order", "shop.tree", "shop.price"]


def test_schemas_stand_by_themselves() -> None:
    for one in described("shop.*").values():
        for schema in (one.takes, one.gives or {}):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
            assert "components" not in json.dumps(schema)


def test_a_model_that_holds_itself_is_an_object_at_the_root() -> None:
    takes = described("shop.tree")["shop.tree"].takes
    jsonschema.validate({"id": 1, "parts": [{"id": 2}]}, takes)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"id": 1, "parts": [{"id": "two"}]}, takes)


def test_what_is_no_object_is_a_member_of_one() -> None:
    one = described("shop.price")["shop.price"]
    jsonschema.validate({"value": 3}, one.takes)
    assert one.body({"value": 3}) == Content(body=b"3", typ=JSON)
    assert one.decoded_result(Content(body=b"12", typ=JSON)) == {"result": 12}
    assert described("shop.order")["shop.order"].decoded_result(Content(body=b'{"number": 1}', typ=JSON)) == {
        "number": 1
    }


def test_a_body_is_bounded_as_it_is_sent() -> None:
    order = described("shop.order")["shop.order"]
    assert len(order.body({"a": "x" * (DEFAULT_LIMITS.body_bytes - 9)}).body) == DEFAULT_LIMITS.body_bytes
    for arguments in ({"a": "x" * (DEFAULT_LIMITS.body_bytes - 8)}, {"a": [1] * 400_000}):
        with pytest.raises(EdgeError) as refused:
            order.body(arguments)
        assert (refused.value.code, refused.value.status) == (Code.TOO_LARGE, 413)


def test_parts_are_a_list() -> None:
    one = described("shop.order")["shop.order"]
    parted = DescribedAction(one.agent, one.action.model_copy(update={"parts": True}), one.models)
    jsonschema.validate({"result": [{"number": 1}, {"number": 2}]}, parted.gives or {})
    given = parted.decoded_result(Content(body=b'{"number":1}', typ=JSON), Content(body=b'{"number":2}', typ=JSON))
    assert given == {"result": [{"number": 1}, {"number": 2}]}


@pytest.mark.parametrize(
    "answer", [Content(body=b"{", typ=JSON), Content(body=b"{}", typ=OCTETS), Content(body=b"[]", typ=JSON)]
)
def test_an_answer_that_is_no_json_object_is_refused(answer: Content) -> None:
    with pytest.raises(HandlingError):
        described("shop.order")["shop.order"].decoded_result(answer)


def test_the_scope_of_an_action_wins_over_that_of_its_agent() -> None:
    found = described("shop.*", shop_order="order", **{"shop_*": "shop"})
    assert {name: one.scope for name, one in found.items()} == {
        "shop.order": "order",
        "shop.tree": "shop",
        "shop.price": "shop",
    }


@pytest.mark.parametrize("pattern", ["shop.photo", "shop.nothing", "other.*", "shop"])
def test_a_pattern_that_names_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="here"):
        described(pattern)


def test_what_the_edge_does_not_expose_is_not_shown() -> None:
    with pytest.raises(ConfigurationError):
        described_actions(["shop.order"], SCHEMAS, Exposed(["shop.tree"], NAMES), scopes={}, setting="here")


def test_a_scope_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is for no action"):
        described("shop.order", shop_tree="tree")
