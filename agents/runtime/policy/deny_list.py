"""The deny list: the platform's registry of the revoked, as policy data that is pushed.

`data.sealbus.registry.revoked` by kind and id, and `data.sealbus.registry.issued_before` by SPIFFE ID for the keys of a
workload (`sealbus.policies.bundle.revocations`). Policies must read the first, as the starter and the platform's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.decision.documents import DataDocument

__all__ = ["KINDS", "Denial", "add", "carry", "denials", "forget"]

KINDS: Final = MappingProxyType({"workload": "agents", "user": "users", "session": "sessions", "client": "clients"})
"""The kinds that can be denied, and their places in the registry."""

_BEFORE: Final = "issued_before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One denied id. `before` is microseconds: only credentials issued before then are denied; 0 for all of it."""

    kind: str
    id: str
    before: int = 0
    at: str = ""
    reason: str = ""


def denials(data: DataDocument) -> Iterator[Denial]:
    """Yield everything that the registry denies, by kind and id."""
    revoked = _table(_registry(data), "revoked", make=False)
    for kind, name in KINDS.items():
        for one, said in sorted(_table(revoked, name, make=False).items()):
            if said is not False:
                more = said if isinstance(said, dict) else {}
                yield Denial(kind=kind, id=one, at=str(more.get("at", "")), reason=str(more.get("reason", "")))
    for spiffe_id, time in sorted(issued_before(data).items(), key=lambda one: str(one[0])):
        yield Denial(kind="workload", id=str(spiffe_id), before=time)


def add(denial: Denial) -> Callable[[DataDocument], None]:
    """Return the change that adds `denial` to a policy's data."""

    def change(data: DataDocument) -> None:
        registry = _registry(data)
        if denial.before:
            _table(registry, _BEFORE)[denial.id] = denial.before
        else:
            said: DataDocument = {"at": denial.at}
            if denial.reason:
                said["reason"] = denial.reason
            _table(_table(registry, "revoked"), KINDS[denial.kind])[denial.id] = said

    return change


def forget(kind: str, one: str) -> Callable[[DataDocument], None]:
    """Return the change that removes every denial of `one`; the change raises `ConfigurationError` if there is none."""

    def change(data: DataDocument) -> None:
        registry = _registry(data)
        found = _table(_table(registry, "revoked"), KINDS[kind]).pop(one, None) is not None
        if kind == "workload":
            found = _table(registry, _BEFORE).pop(one, None) is not None or found
        if not found:
            raise ConfigurationError(f"{kind} {one} is not denied: sealbus deny ls")

    return change


def carry(data: DataDocument, current: DataDocument) -> bool:
    """Add what `current` denies and `data` does not; return whether there was anything.

    For every change but `forget`: a policy folder knows nothing of denials since it was written.
    """
    known = {(one.kind, one.id, bool(one.before)): one for one in denials(data)}
    missing = [
        one
        for one in denials(current)
        if (found := known.get((one.kind, one.id, bool(one.before)))) is None or found.before < one.before
    ]
    for one in missing:
        add(one)(data)
    return bool(missing)


def _registry(data: DataDocument) -> DataDocument:
    return _table(_table(data, "sealbus"), "registry")


def _table(data: DataDocument, name: str, *, make: bool = True) -> DataDocument:
    found: Json = data.setdefault(name, {}) if make else data.get(name, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{name} is not an object in the policy's data")
    return found
