"""Denials that come into force by themselves: small signed bundles that add one id to the platform's registry.

An entry has one denial, no Rego, and a serial of the platform's sequence. A later bundle of the platform has it already if it
says so in its manifest, `{"metadata": {"sealbus": {"denials": 14}}}`; else the entry adds to that bundle, too::

    platform 12     the bundle
    entry    13     {"sealbus": {"registry": {"revoked": {"users": {"carol": {"at": "..."}}}}}}
    entry    14     {"sealbus": {"registry": {"issued_before": {"spiffe://example.org/agent/shop": 1764579600000000}}}}
    platform 15     a bundle with both, which has the denials up to 14

The policy then has the data that a new bundle of the platform would give it, and a revision of its own. Nothing else is
composed, checked or compiled. So a denial costs the same with a registry of a hundred entries and of a hundred thousand.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.format import Bundle, Extension, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.decision.documents import DataDocument, canonical
from sealbus.policies.lint import syntax
from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import PolicyRefused, Problem

DENIAL: Final = "platform.denial"
"""The scope of an entry's signature, by a key that signs the platform's bundle. No part has a dot in its name."""
ROOT: Final = ("sealbus", "registry")
KINDS: Final = MappingProxyType({"workload": "agents", "user": "users", "session": "sessions", "client": "clients"})
"""The kinds that can be denied, and their places in `revoked`."""
REVOKED: Final = "revoked"
BEFORE: Final = "issued_before"

DENIAL_BYTES: Final = 8_192
"""Largest file of an entry; most take 700 bytes."""

_PLACES: Final = ((*ROOT, REVOKED), (*ROOT, BEFORE))
_REVISION_BYTES: Final = 252
"""Digits of the hash at the start of a composed revision."""
_PLATFORM_SERIAL: Final = re.compile(rf"\.{PLATFORM}-([0-9]+)")
_PROBE: Final = "spiffe://example.org/nobody"
"""An id that is denied to see whether one can be."""


def pack_denial(data: DataDocument, serial: int) -> Bundle:
    """Return the unsigned entry whose `data` has one denial, under `serial`. Raises `PolicyRefused` as `check_denial`."""
    bundle = read_bundle(pack_bundle({}, data, Manifest(roots=("/".join(ROOT),), serial=serial)))
    check_denial(bundle)
    return bundle


def check_denial(bundle: Bundle) -> None:
    """Raise `PolicyRefused` unless `bundle` may be an entry: small, no Rego, and data that denies exactly one id."""
    if len(bundle.raw) > DENIAL_BYTES:
        raise _refused(f"an entry has at most {DENIAL_BYTES} bytes")
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

    Of two times the later stays, as both were denied. Only the objects on the way to the id are copied. Raises
    `PolicyRefused` where `data` has something else there.
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
    time, former = value[denied] if isinstance(value, dict) else None, current.get(denied)
    later = type(former) is int and type(time) is int and former > time
    current[denied] = former if later else time
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


def check_fit(bundle: Bundle) -> None:
    """Raise `PolicyRefused` if an entry cannot be added to the composed `bundle`: its roots leave the place of denials out.

    Nor may a rule stand there, or above: the entry's data would hide what the rule denies.
    """
    roots = [tuple(filter(None, root.split("/"))) for root in bundle.roots]
    for place in _PLACES:
        if not any(place[: len(root)] == root for root in roots):
            raise _refused(f"{'.'.join(place)} is outside the roots of the policy")
    files, _ = parse_all(bundle.modules)
    for file in files:
        for rule in file.rules:
            path = file.package + syntax.leading_names(rule.head)
            if any(path[: len(place)] == place[: len(path)] for place in _PLACES):
                raise _refused(f"a rule stands at {'.'.join(path)}")


def takes_denials(bundle: Bundle) -> bool:
    """Return whether the composed `bundle` would pass its check with a denial of each kind, too."""
    data = bundle.data
    try:
        check_fit(bundle)
        for kind in KINDS.values():
            data = with_denial(data, {"sealbus": {"registry": {REVOKED: {kind: {_PROBE: {"at": "", "reason": ""}}}}}})
        check_bundle(replace(bundle, data=with_denial(data, {"sealbus": {"registry": {BEFORE: {_PROBE: 1}}}})))
    except PolicyRefused:
        return False
    return True


def extended(composed: Bundle, entry: Bundle) -> Bundle:
    """Return the composed bundle with the denial of `entry`, which is verified; `check_fit` has passed.

    Its revision begins with a hash of the former revision and of the entry, of as many digits as the former has. The
    platform's serial in it is that of the last bundle or entry. Raises `PolicyRefused` as `with_denial`.
    """
    digits = len(composed.revision.partition(".")[0])
    summary = sha256(canonical([composed.revision, entry.serial, entry.data])).hexdigest()[:digits]

    def label(former: re.Match[str]) -> str:
        return f".{PLATFORM}-{max(int(former[1]), entry.serial)}"

    revision = summary + _PLATFORM_SERIAL.sub(label, composed.revision[digits:], count=1)
    steps = composed.extension.steps if composed.extension is not None else ()
    return Bundle(
        revision=revision if len(revision) <= _REVISION_BYTES else f"{summary}...",
        roots=composed.roots,
        modules=composed.modules,
        data=with_denial(composed.data, entry.data),
        parts=composed.parts,
        extension=Extension(steps=(*steps, (composed.revision, entry.data))),
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
