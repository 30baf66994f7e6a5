"""The claims of a token, read by type: what is missing or of another type is refused, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sealbus.agents.edge.errors import TokenRefused
from sealbus.envelopes.codec import is_text
from sealbus.envelopes.context_payload import ClaimValue
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.strict_json import Json

__all__ = ["Claims"]

_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_LATEST: Final = _MAX_INTEGER // SECOND
"""The last second whose microseconds a context can hold; in the year 2255."""
_ITEMS: Final = DEFAULT_LIMITS.text_items


class Claims:
    """The claims of one token. Every method but `allowed` raises `TokenRefused`, which names the claim.

    A text is 1 to 256 bytes without control characters, as in a user context: what could not be carried on is refused
    here, where it can be said to whoever sent it.
    """

    __slots__ = ("_claims",)

    def __init__(self, claims: Mapping[str, Json]) -> None:
        self._claims = claims

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._claims.get(name)
        if type(value) is not str or not value or not is_text(value):
            raise TokenRefused(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of at most 32 texts."""
        value = self._claims.get(name)
        if type(value) is not list or len(value) > _ITEMS:
            raise TokenRefused(name)
        texts = tuple([item for item in value if type(item) is str and is_text(item)])
        if len(texts) != len(value):
            raise TokenRefused(name)
        return texts

    def audiences(self, name: str) -> frozenset[str]:
        """Return the audiences: one text, or an array of texts (RFC 7519 section 4.1.3)."""
        value = self._claims.get(name)
        listed = value if type(value) is list else [value]
        texts = frozenset(item for item in listed if type(item) is str)
        if len(texts) != len(listed):
            raise TokenRefused(name)
        return texts

    def scope(self, name: str) -> tuple[str, ...]:
        """Return the scope values that a text lists, divided by single spaces (RFC 6749 section 3.3); none if absent."""
        value = self._claims.get(name, "")
        if type(value) is not str:
            raise TokenRefused(name)
        values = tuple(value.split(" ")) if value else ()
        if len(values) > _ITEMS or not all(one and is_text(one) for one in values):
            raise TokenRefused(name)
        return values

    def time(self, name: str) -> int:
        """Return a time in microseconds since the Unix epoch. Whole seconds only: no server of note sends fractions."""
        value = self._claims.get(name)
        if type(value) is not int or not 0 <= value <= _LATEST:
            raise TokenRefused(name)
        return value * SECOND

    def allowed(self, names: Mapping[str, str]) -> Mapping[str, ClaimValue]:
        """Return the claims that `names` lists, under the names that it gives them.

        What is absent or cannot stand in a user context (SPEC.md section 6: a text, an integer, a boolean or an array
        of texts, within its limits) is left out: a policy that needs it then denies.
        """
        found = {ours: _claim_value(self._claims.get(theirs)) for theirs, ours in names.items()}
        return MappingProxyType({name: value for name, value in found.items() if value is not None})


def _claim_value(value: Json) -> ClaimValue | None:
    if type(value) is bool:
        return value
    if type(value) is int:
        return value if -_MAX_INTEGER <= value <= _MAX_INTEGER else None
    if type(value) is str:
        return value if is_text(value) else None
    if type(value) is list and len(value) <= _ITEMS:
        texts = tuple([item for item in value if type(item) is str and is_text(item)])
        return texts if len(texts) == len(value) else None
    return None
