"""Names of agents and their SPIFFE IDs, one to one (SPEC.md section 1, "Names")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

ANONYMOUS: Final = "id-"
"""Prefix of the token of an ID without a name. No name begins with it."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")
_PLACE: Final = "{name}"


def is_token(text: str) -> bool:
    """Return whether `text` can stand between the dots of a subject."""
    return _TOKEN.fullmatch(text) is not None


class Names:
    """The mapping of names to SPIFFE IDs and back, from the settings: a template, and a table that overrides it.

    `template` is a path in the local trust domain with `{name}` once, within one segment. `table` may name IDs of other
    trust domains. Raises `ConfigurationError` for a template or table that is not one to one or gives no valid IDs.
    """

    __slots__ = ("_by_id", "_prefix", "_suffix", "_table", "_token", "template", "trust_domain")

    def __init__(
        self,
        trust_domain: TrustDomain,
        template: str = f"/agent/{_PLACE}",
        table: Mapping[str, SpiffeId] = MappingProxyType({}),
    ) -> None:
        if template.count(_PLACE) != 1:
            raise ConfigurationError(f"agent template {template!r}: it must hold {_PLACE} exactly once")
        try:
            trust_domain.id(template.replace(_PLACE, "x"))
        except EnvelopeError as error:
            raise ConfigurationError(f"agent template {template!r}: not the path of a SPIFFE ID") from error
        self.trust_domain: Final = trust_domain
        self.template: Final = template
        before, after = template.split(_PLACE)
        self._prefix: Final = f"spiffe://{trust_domain}{before}"
        self._suffix: Final = after
        self._table: Final = MappingProxyType(dict(table))
        self._by_id: Final = MappingProxyType({spiffe_id: name for name, spiffe_id in table.items()})
        for name in table:
            if not _is_name(name):
                raise ConfigurationError(f"agent name {name!r}: letters, digits, _ and -, not starting with id-")
        if len(self._by_id) != len(self._table):
            raise ConfigurationError("the table of agents gives two names to one SPIFFE ID")
        # Bounded, because IDs come from peers. The key is the text, whose hash Python caches.
        self._token = lru_cache(maxsize=4096)(self._make_token)

    @property
    def table(self) -> Mapping[str, SpiffeId]:
        """The table of the settings."""
        return self._table

    def id_of(self, name: str) -> SpiffeId:
        """Return the SPIFFE ID of `name`; raise `ConfigurationError` if it has none.

        If the table gives another name to the template's ID, `name` is invalid: one agent would have two inboxes and two
        actions.
        """
        listed = self._table.get(name)
        if listed is not None:
            return listed
        if not _is_name(name):
            raise ConfigurationError(f"agent name {name!r}: letters, digits, _ and -, not starting with id-")
        try:
            spiffe_id = SpiffeId.parse(f"{self._prefix}{name}{self._suffix}")
        except EnvelopeError as error:
            raise ConfigurationError(f"agent name {name!r}: too long for a SPIFFE ID") from error
        if spiffe_id in self._by_id:
            raise ConfigurationError(f"agent name {name!r}: its SPIFFE ID is named {self._by_id[spiffe_id]!r}")
        return spiffe_id

    def name_of(self, spiffe_id: SpiffeId) -> str | None:
        """Return the name of `spiffe_id`, or None; `id_of` maps the name back."""
        listed = self._by_id.get(spiffe_id)
        if listed is not None:
            return listed
        value, prefix, suffix = spiffe_id.value, self._prefix, self._suffix
        if not (value.startswith(prefix) and value.endswith(suffix)):
            return None
        name = value[len(prefix) : len(value) - len(suffix)]
        if not _is_name(name) or name in self._table:
            return None
        return name

    def token(self, spiffe_id: SpiffeId) -> str:
        """Return the subject token of `spiffe_id`: its name, or `id-` and 32 hex digits of its hash."""
        return self._token(spiffe_id.value)

    def inbox_prefix(self, spiffe_id: SpiffeId) -> str:
        """Return the prefix of every reply subject of `spiffe_id`, `_INBOX.<token>.`."""
        return "_INBOX." + self._token(spiffe_id.value) + "."

    @property
    def remembered(self) -> int:
        """The number of cached tokens, at most 4,096."""
        return self._token.cache_info().currsize

    def _make_token(self, text: str) -> str:
        name = self.name_of(SpiffeId.parse(text))
        return name if name is not None else ANONYMOUS + sha256(text.encode()).hexdigest()[:32]


def _is_name(text: str) -> bool:
    return is_token(text) and not text.startswith(ANONYMOUS)
