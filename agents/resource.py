"""What an action is done to, with attributes that the agent vouches for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Resource"]


@dataclass(frozen=True, slots=True, init=False)
class Resource:
    """A resource as its owning agent knows it: `Resource("item", "42", owner="u-1001", customer="acme")`.

    Return it from the loader that a handler names with `resource=`. Attributes come from the agent's own data, never
    from the message; they reach the policy as `resource.properties` and must be text, integers, booleans or lists of text.
    """

    type: str
    id: str
    properties: Mapping[str, object] = field(default_factory=dict)

    def __init__(self, type: str, id: str, /, **properties: object) -> None:  # noqa: A002  the words of AuthZEN
        if not type or not id:
            raise ValueError("a resource has a type and an id")
        object.__setattr__(self, "type", type)
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "properties", MappingProxyType(dict(properties)))
