"""A resource is what its agent says, and doesn't change afterwards."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from sealbus import Resource
from sealbus.envelopes.errors import ConfigurationError


def test_attributes_are_its_properties() -> None:
    made = Resource("item", "42", owner="alice", type_="x")
    assert (made.type, made.id, dict(made.properties)) == ("item", "42", {"owner": "alice", "type_": "x"})


@pytest.mark.parametrize("value", ["x", "", 0, -(2**53 - 1), 2**53 - 1, True, ["a", "b"], ("a",), [1, False], []])
def test_an_attribute_is_what_a_policy_can_be_asked_about(value: object) -> None:
    assert Resource("item", "42", amount=value).properties["amount"] == value


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), None, 2**53, -(2**53), {"a": 1}, [1.5], [["a"]], [None], b"x", Decimal(1)]
)
def test_any_other_is_refused_where_it_is_made_by_its_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^configuration: resource item\.amount is or holds ") as refused:
        Resource("item", "42", owner="alice", amount=value)
    assert "1.5" not in refused.value.detail


@pytest.mark.parametrize(("kind", "name"), [("", "42"), ("item", ""), ("item", 42), (None, "42")])
def test_it_has_a_type_and_an_id(kind: Any, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="a type and an id"):
        Resource(kind, name)


def test_properties_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        Resource("item", "42", owner="alice").properties["owner"] = "mallory"  # type: ignore[index]
