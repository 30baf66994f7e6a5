"""The demo users: those that the starter policy knows, and what `[dev.users]` of sealbus.toml adds (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.context_payload import ClaimValue
from sealbus.envelopes.errors import ConfigurationError

__all__ = ["DEMO_USERS", "RESERVED_CLAIMS", "DemoUser", "merged_users"]

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_CLAIM: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

RESERVED_CLAIMS: Final = frozenset(
    {"iss", "exp", "nbf", "aud", "sub", "client_id", "iat", "jti", "scope", "sid", "auth_time", "nonce", "acr", "amr"}
    | {"cnf", "act", "may_act", "azp"}
)
"""Claims that a token has by what it is; no user can be declared to have them."""

MOST_USERS: Final = 200
"""They stand on one page."""
MOST_CLAIMS: Final = 32
LONGEST_CLAIM: Final = 256
"""Characters of a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoUser:
    """A person who can log in without a password: the identifier is the token's `sub`, the claims stand in it as they are.

    The claim `name` is what the page of users shows. Raises `ConfigurationError` for what no token may hold.
    """

    identifier: str
    claims: Mapping[str, ClaimValue] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.identifier):
            raise ConfigurationError(
                f"demo user {self.identifier!r}: use up to 64 letters, digits and . _ @ -, starting with a letter or digit"
            )
        if len(self.claims) > MOST_CLAIMS:
            raise ConfigurationError(f"demo user {self.identifier}: more than {MOST_CLAIMS} claims")
        for name, value in self.claims.items():
            if name in RESERVED_CLAIMS or not _CLAIM.fullmatch(name):
                raise ConfigurationError(f"demo user {self.identifier}: {name!r} cannot be a claim of a user")
            texts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(text, str) and len(text) > LONGEST_CLAIM for text in texts):
                raise ConfigurationError(
                    f"demo user {self.identifier}: claim {name} is over {LONGEST_CLAIM} characters"
                )
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))

    @property
    def name(self) -> str:
        """What people see."""
        said = self.claims.get("name")
        return said if isinstance(said, str) else self.identifier


DEMO_USERS: Final = (
    DemoUser(identifier="alice", claims={"name": "Alice Adams", "department": "shop", "region": "eu"}),
    DemoUser(identifier="bob", claims={"name": "Bob Brown", "department": "accounts", "region": "eu"}),
    DemoUser(identifier="carol", claims={"name": "Carol Clark", "department": "accounts", "region": "us"}),
    DemoUser(identifier="dave", claims={"name": "Dave Davis", "department": "guests", "region": "us"}),
)
"""alice, bob and carol are users of the starter policy's data; it knows nothing about dave."""


def merged_users(more: Mapping[str, Mapping[str, object]]) -> tuple[DemoUser, ...]:
    """Return the demo users and `more`, each an identifier with claims; the same identifier replaces a demo user.

    Raises `ConfigurationError` for a claim that is not a text, a whole number, true or false, or a list of texts.
    """
    users = {user.identifier: user for user in DEMO_USERS}
    for identifier, claims in more.items():
        users[identifier] = DemoUser(
            identifier=identifier, claims={name: _claim(identifier, name, value) for name, value in claims.items()}
        )
    if len(users) > MOST_USERS:
        raise ConfigurationError(f"dev.users: more than {MOST_USERS} users")
    return tuple(users.values())


def _claim(identifier: str, name: str, value: object) -> ClaimValue:
    if isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ConfigurationError(f"demo user {identifier}: claim {name} must be a text, a whole number, a truth or texts")
