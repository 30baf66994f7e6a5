"""The deny list: the platform's registry of revoked ids, as policy data that is pushed.

`data.sealbus.registry.revoked` by kind and id, and `data.sealbus.registry.issued_before` by SPIFFE ID for the keys of a
workload (`sealbus.policies.bundle.revocations`). Policies must read `revoked`, as the starter and the platform policy do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.denials import BEFORE, KINDS, REVOKED
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.decision.documents import DataDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One denied id. `before` is microseconds: only credentials issued before then are denied; with 0, all of them."""

    kind: str
    id: str
    before: int = 0
    at: str = ""
    reason: str = ""


def denials(data: DataDocument) -> Iterator[Denial]:
    """Yield all denials of the registry, by kind and id."""
    registry = _table(_table(data, "sealbus", make=False), "registry", make=False)
    revoked = _table(registry, REVOKED, make=False)
    for kind, name in KINDS.items():
        for id_, value in sorted(_table(revoked, name, make=False).items()):
            if value is not False:
                members = value if isinstance(value, dict) else {}
                yield Denial(kind=kind, id=id_, at=str(members.get("at", "")), reason=str(members.get("reason", "")))
    for spiffe_id, time in sorted(issued_before(data).items(), key=lambda item: str(item[0])):
        yield Denial(kind="workload", id=str(spiffe_id), before=time)


def add(denial: Denial) -> Callable[[DataDocument], None]:
    """Return the change that adds `denial` to a policy's data; of two times the later stays."""

    def change(data: DataDocument) -> None:
        registry = _registry(data)
        if denial.before:
            times = _table(registry, BEFORE)
            former = times.get(denial.id)
            times[denial.id] = max(denial.before, former) if type(former) is int else denial.before
        else:
            members: DataDocument = {"at": denial.at}
            if denial.reason:
                members["reason"] = denial.reason
            _table(_table(registry, REVOKED), KINDS[denial.kind])[denial.id] = members

    return change


def forget(kind: str, id_: str) -> Callable[[DataDocument], None]:
    """Return the change that removes every denial of the id `id_`; it raises `ConfigurationError` if there is none."""

    def change(data: DataDocument) -> None:
        registry = _registry(data)
        was_denied = _table(_table(registry, REVOKED), KINDS[kind]).pop(id_, None) is not None
        if kind == "workload":
            was_denied = _table(registry, BEFORE).pop(id_, None) is not None or was_denied
        if not was_denied:
            raise ConfigurationError(f"{kind} {id_} is not denied: sealbus deny ls")

    return change


def carry(data: DataDocument, current: DataDocument) -> bool:
    """Add the denials of `current` that `data` lacks; return whether there were any.

    For every change except `forget`: a policy folder does not have the denials made since it was written.
    """
    known = {(denial.kind, denial.id, bool(denial.before)): denial.before for denial in denials(data)}
    missing = [
        denial
        for denial in denials(current)
        if (before := known.get((denial.kind, denial.id, bool(denial.before)))) is None or before < denial.before
    ]
    for denial in missing:
        add(denial)(data)
    return bool(missing)


def _registry(data: DataDocument) -> DataDocument:
    return _table(_table(data, "sealbus"), "registry")


def _table(data: DataDocument, name: str, *, make: bool = True) -> DataDocument:
    table: Json = data.setdefault(name, {}) if make else data.get(name, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{name} is not an object in the policy's data")
    return table
