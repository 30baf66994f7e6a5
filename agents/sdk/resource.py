"""The object of an action, with attributes that the agent vouches for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed
from sealbus.policies.decision.request import check_properties


@dataclass(frozen=True, slots=True, init=False)
class Resource:
    """A resource as the agent that owns it knows it: `Resource("item", "42", owner="u-1001", customer="acme")`.

    Return it from the loader that a handler names with `resource=`. Attributes come from the agent's own data, never
    from the message; they reach the policy as `resource.properties` and are text, whole numbers within 2^53-1, booleans or
    lists of these. Raises `ConfigurationError`, with the attribute's name, for any other value: engines read fractions
    and nulls in different ways (give cents instead of 1.5).
    """

    type: str
    id: str
    properties: Mapping[str, object] = field(default_factory=dict)

    def __init__(self, type: str, id: str, /, **properties: object) -> None:  # noqa: A002  the words of AuthZEN
        texts: tuple[object, ...] = (type, id)
        if not all(isinstance(text, str) and text for text in texts):
            raise ConfigurationError("a resource has a type and an id, which are texts")
        try:
            check_properties(f"resource {type}", properties)
        except PolicyFailed as error:
            raise ConfigurationError(error.detail) from error
        object.__setattr__(self, "type", type)
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "properties", MappingProxyType(dict(properties)))
