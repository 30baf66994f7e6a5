"""A resource is what its agent says, and doesn't change afterwards."""

from __future__ import annotations

import pytest

from sealbus import Resource


def test_attributes_are_its_properties() -> None:
    made = Resource("item", "42", owner="alice", type_="x")
    assert (made.type, made.id, dict(made.properties)) == ("item", "42", {"owner": "alice", "type_": "x"})


@pytest.mark.parametrize(("kind", "name"), [("", "42"), ("item", "")])
def test_it_has_a_type_and_an_id(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match="a type and an id"):
        Resource(kind, name)


def test_properties_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        Resource("item", "42", owner="alice").properties["owner"] = "mallory"  # type: ignore[index]
