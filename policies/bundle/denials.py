"""Denials that come into force by themselves: small signed bundles that add one id to the platform's registry.

An entry has one denial, no Rego, and a serial of the platform's sequence. It adds to the bundle of every earlier serial, and
a later bundle of the platform has it already::

    platform 12     the bundle
    entry    13     {"sealbus": {"registry": {"revoked": {"users": {"carol": {"at": "..."}}}}}}
    entry    14     {"sealbus": {"registry": {"issued_before": {"spiffe://example.org/agent/shop": 1764579600000000}}}}
    platform 15     a bundle with both

The policy then has the data that a new bundle of the platform would give it, and a revision of its own. Nothing else is
composed, checked or compiled. So a denial costs the same with a registry of a hundred entries and of a hundred thousand.
"""

from __future__ import annotations

import re
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.format import Bundle, Extension, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.decision.documents import DataDocument, canonical
from sealbus.policies.lint.module import PolicyRefused, Problem

DENIAL: Final = "platform.denial"
"""The scope of an entry's signature, by a key that signs the platform's bundle. No part has a dot in its name."""
ROOT: Final = ("sealbus", "registry")
KINDS: Final = MappingProxyType({"workload": "agents", "user": "users", "session": "sessions", "client": "clients"})
"""The kinds that can be denied, and their places in `revoked`."""
REVOKED: Final = "revoked"
BEFORE: Final = "issued_before"

_REVISION_DIGITS: Final = 12
"""Digits of the hash at the start of a composed revision."""
_PLATFORM_SERIAL: Final = re.compile(rf"\.{PLATFORM}-[0-9]+")


def pack_denial(data: DataDocument, serial: int) -> Bundle:
    """Return the unsigned entry whose `data` has one denial, under `serial`. Raises `PolicyRefused` as `check_denial`."""
    bundle = read_bundle(pack_bundle({}, data, Manifest(roots=("/".join(ROOT),), serial=serial)))
    check_denial(bundle)
    return bundle


def check_denial(bundle: Bundle) -> None:
    """Raise `PolicyRefused` unless `bundle` may be an entry: no Rego, and data that denies exactly one id."""
    if bundle.roots != ("/".join(ROOT),) or bundle.modules:
        raise _refused(f"an entry must have the one root {'/'.join(ROOT)} and no Rego")
    registry = _registry(bundle.data)
    [(place, value)] = registry.items()
    if place == BEFORE:
        _check_one(value)
        try:
            issued_before(bundle.data)
        except ValueError as error:
            raise _refused(str(error)) from error
    elif place == REVOKED and isinstance(value, dict) and len(value) == 1 and value.keys() <= set(KINDS.values()):
        [ids] = value.values()
        [members] = _check_one(ids).values()
        if not isinstance(members, dict):
            raise _refused("the denied id has no object")
    else:
        raise _refused(f"neither {BEFORE} nor one kind of {REVOKED}")


def _check_one(ids: Json) -> DataDocument:
    if not isinstance(ids, dict) or len(ids) != 1:
        raise _refused("not exactly one id is denied")
    return ids


def with_denial(data: DataDocument, added: DataDocument) -> DataDocument:
    """Return `data` with the denial of an entry's data `added`, which replaces one of the same id. `data` is not changed.

    Only the objects on the way to the id are copied. Raises `PolicyRefused` where `data` has something else there.
    """
    changed = current = {**data}
    value: Json = added
    *names, denied = denied_path(added)
    for name in names:
        value = value[name] if isinstance(value, dict) else None
        present = current.get(name, {})
        if not isinstance(present, dict):
            raise _refused(f"{name} is not an object in the policy's data")
        current[name] = current = {**present}
    current[denied] = value[denied] if isinstance(value, dict) else None
    return changed


def is_denied(data: DataDocument, added: DataDocument) -> bool:
    """Return whether `data` already has a denial of the id in an entry's data `added`, perhaps another one."""
    value: Json = data
    for name in denied_path(added):
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def denied_path(added: DataDocument) -> tuple[str, ...]:
    """Return the names from the top of an entry's data to the denied id, which is the last."""
    depth = len(ROOT) + (3 if _registry(added).keys() == {REVOKED} else 2)
    path: list[str] = []
    value: Json = added
    while isinstance(value, dict) and len(path) < depth:
        [(name, value)] = value.items()
        path.append(name)
    return tuple(path)


def extended(composed: Bundle, entry: Bundle) -> Bundle:
    """Return the composed bundle with the denial of `entry`, which is verified.

    Its revision begins with a hash of the former revision and of the entry, and has the entry's serial as the platform's.
    Raises `PolicyRefused` as `with_denial`, and if the denied id is outside the roots of the bundle.
    """
    path = denied_path(entry.data)
    if not any(path[: len(root)] == root for root in (tuple(filter(None, root.split("/"))) for root in composed.roots)):
        raise _refused(f"{'.'.join(path[:-1])} is outside the roots of the policy")
    summary = sha256(canonical([composed.revision, entry.serial, entry.data])).hexdigest()[:_REVISION_DIGITS]
    label = f".{PLATFORM}-{entry.serial}"
    revision = summary + _PLATFORM_SERIAL.sub(label, composed.revision[_REVISION_DIGITS:], count=1)
    return Bundle(
        revision=revision,
        roots=composed.roots,
        modules=composed.modules,
        data=with_denial(composed.data, entry.data),
        parts=composed.parts,
        extension=Extension(revision=composed.revision, added=entry.data),
    )


def _registry(added: DataDocument) -> DataDocument:
    registry: Json = added
    for name in ROOT:
        registry = registry.get(name) if isinstance(registry, dict) and registry.keys() == {name} else None
    if not isinstance(registry, dict) or len(registry) != 1:
        raise _refused("not an object with one denial")
    return registry


def _refused(text: str) -> PolicyRefused:
    return PolicyRefused([Problem.of_whole("data.json", "denial", text)])
