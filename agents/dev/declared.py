"""What ./sealbus.toml says that `sealbus dev` takes over: names, own subjects, users, how work is done; not places."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sealbus.agents.dev.idp.users import DEMO_USERS, DemoUser, merged_users
from sealbus.agents.dev.users import EDGE_PATH
from sealbus.agents.settings import Flag, load_settings
from sealbus.agents.settings_sources import Key, dotted, file_entries
from sealbus.envelopes.names import Names
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain
from sealbus.envelopes.subjects import OwnSubject

__all__ = ["DEFAULT_TRUST_DOMAIN", "Declared", "read_declared"]

DEFAULT_TRUST_DOMAIN = "example.org"
_TEMPLATE = "/agent/{name}"

_READ: Final = frozenset({"trust_domain", "agents", "subjects"})
_KEPT: Final = frozenset({"audit", "chain", "context", "identity", "limits", "streams", "worker"})
"""Tables that hold as they stand: they are about work, not about where things are."""
_OURS: Final = frozenset({("context", "minters"), ("streams", "replicas")})
"""Of these, what the development environment says: its edge mints, and it is one server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a project says about itself. `agents` are the names that it mentions, also as owners of own subjects."""

    trust_domain: str = DEFAULT_TRUST_DOMAIN
    template: str = _TEMPLATE
    table: Mapping[str, SpiffeId] = field(default_factory=lambda: MappingProxyType({}))
    agents: tuple[str, ...] = ()
    own: tuple[OwnSubject, ...] = ()
    users: tuple[DemoUser, ...] = DEMO_USERS
    kept: Mapping[Key, object] = field(default_factory=lambda: MappingProxyType({}))
    """Settings that hold as they stand."""
    max_bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Of `kept`, how much each stream may hold, by its name."""
    unused: tuple[str, ...] = ()
    """What the file says that does not hold here, as tables or keys."""

    def names(self) -> Names:
        """Return names and SPIFFE IDs as the project has them; `edge` stands for the edge unless it is listed."""
        domain = TrustDomain(self.trust_domain)
        return Names(domain, self.template, {"edge": domain.id(EDGE_PATH), **self.table})


def read_declared(path: Path) -> Declared:
    """Return what the settings file `path` declares; nothing if there is no such file.

    Raises `ConfigurationError`, one line, for what the settings would not take either.
    """
    if not path.exists():
        return Declared()
    entries = file_entries(path)
    said = entries.get(("trust_domain",))
    settings = load_settings(
        path,
        environment={},
        # These are the development environment's own; a file need not say them, and they do not matter here.
        flags=[
            Flag(option="sealbus dev", key="nats", value=["tls://127.0.0.1:4222"]),
            Flag(option="sealbus dev", key="policy.engine", value="embedded"),
            Flag(option="sealbus dev", key="trust_domain", value=None if said else DEFAULT_TRUST_DOMAIN),
        ],
    )
    names = settings.names
    listed = [key[1] for key in entries if key[0] == "agents" and key[1] != "template"]
    owners = [name for one in settings.own_subjects if (name := names.name_of(one.owner)) is not None]
    template = entries.get(("agents", "template"))
    # Read again as it stands: a user without claims is an empty table, which is no value of any key.
    users = tomllib.loads(path.read_text(encoding="utf-8")).get("dev", {}).get("users", {})
    return Declared(
        trust_domain=settings.trust_domain.name,
        template=str(template.value) if template is not None else _TEMPLATE,
        table=MappingProxyType({name: names.id_of(name) for name in listed}),
        agents=tuple(dict.fromkeys((*listed, *owners))),
        own=settings.own_subjects,
        users=merged_users(users),
        kept=MappingProxyType({key: entry.value for key, entry in entries.items() if _is_kept(key)}),
        max_bytes=settings.max_bytes,
        unused=tuple(dict.fromkeys(_shown(key) for key in entries if not _is_used(key))),
    )


def _is_kept(key: Key) -> bool:
    return key[0] in _KEPT and key not in _OURS


def _is_used(key: Key) -> bool:
    return key[0] in _READ or key[:2] == ("dev", "users") or _is_kept(key)


def _shown(key: Key) -> str:
    return dotted(key if key in _OURS else key[:1])
