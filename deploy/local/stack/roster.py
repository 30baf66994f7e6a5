"""Who takes part in the stack: each with a user of the machine of its own, because that is what SPIRE tells them apart by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from stack.spire_entry import Entry

__all__ = ["AGENTS", "CONTROL", "EDGE", "NATS", "NOTARY", "OPA", "PEOPLE", "TRUST_DOMAIN", "Workload", "entries"]

TRUST_DOMAIN: Final = TrustDomain("example.org")

_FIRST_UID: Final = 21_000
"""User IDs need no account on Linux; these are beyond what distributions give to people and services."""

SHOP_GROUP: Final = _FIRST_UID + 100
"""The group of the example agents, which share a database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload `name` with its SPIFFE ID, the user and group of its processes, and what engine it decides by."""

    name: str
    path: str
    uid: int
    gid: int
    engine: str = ""
    dns: tuple[str, ...] = ()

    @property
    def spiffe_id(self) -> SpiffeId:
        """Its SPIFFE ID in the stack's trust domain."""
        return TRUST_DOMAIN.id(self.path)


def _own(number: int, name: str, path: str, *, engine: str = "", dns: tuple[str, ...] = (), gid: int = 0) -> Workload:
    uid = _FIRST_UID + number
    return Workload(name=name, path=path, uid=uid, gid=gid or uid, engine=engine, dns=dns)


NATS: Final = _own(1, "nats", "/nats", dns=("localhost",))
OPA: Final = _own(2, "opa", "/opa", dns=("localhost",))
CONTROL: Final = _own(3, "control", "/control", engine="embedded", dns=("localhost",))
NOTARY: Final = _own(5, "notary", "/agent/notary", engine="embedded")
EDGE: Final = _own(4, "edge", "/edge", engine="central")

AGENTS: Final = (
    _own(11, "inventory", "/agent/inventory", engine="sidecar", gid=SHOP_GROUP),
    _own(12, "pricing", "/agent/pricing", engine="sidecar", gid=SHOP_GROUP),
    _own(13, "planner", "/agent/planner", engine="central", gid=SHOP_GROUP),
    _own(14, "payments", "/agent/payments", engine="sidecar", gid=SHOP_GROUP),
)
"""The example agents. Three ask an OPA beside them, one asks the central one: the answers are the same."""

PEOPLE: Final = tuple(
    Workload(name=name, path=f"/agent/{name}", uid=0, gid=0, engine="central")
    for name in ("operator", "shop-web", "pricing", "stranger")
)
"""Who root may be: SPIRE gives one user all identities that it has entries for, and `sealbus --as` chooses."""


def entries(*, x509_ttl: int, jwt_ttl: int, server_ttl: int) -> tuple[Entry, ...]:
    """Return the registration entries of all of them; lives in seconds, those of servers longer than those of agents."""
    return tuple(
        Entry(
            spiffe_id=one.spiffe_id,
            uid=one.uid,
            x509_ttl=server_ttl if one.dns else x509_ttl,
            jwt_ttl=jwt_ttl,
            dns=one.dns,
        )
        for one in (NATS, OPA, CONTROL, NOTARY, EDGE, *AGENTS, *PEOPLE)
    )
