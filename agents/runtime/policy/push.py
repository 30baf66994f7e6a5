"""Changes of the store by operators and teams: push a part, roll it back, and deny.

Each change is checked before it is written, by the check of every consumer (`PartSet`). So an error reaches only the pusher,
with file and line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sealbus.agents.files import file_errors
from sealbus.agents.runtime.policy.deny_list import carry
from sealbus.agents.runtime.policy.store import MOST_DENIALS, TRIES, PolicyStore, StoredPart
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, key_id
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.denials import DENIAL, pack_denial, with_denial
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.lint.module import PolicyRefused

Content = Callable[[int], Bundle]
"""Makes the bundle to push, given its serial."""
Check = Callable[[Bundle], None]
"""Raises `PolicyRefused` if the composed bundle is invalid (`sealbus.policies.opa.compiler`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The store after a push. `composed` is the revision that consumers will have; `fallen` why each left-out team is out.

    After a denial by itself `composed` is empty: nothing was composed.
    """

    name: str
    serial: int
    composed: str
    fallen: Mapping[str, str]


async def stored_parts(store: PolicyStore, anchors: Mapping[str, PublicKey]) -> tuple[PartSet, dict[str, StoredPart]]:
    """Return the composition of the store's current bundles, and these bundles; `problems` has the refused bundles."""
    current = await store.current()
    parts = PartSet(anchors)
    for name in sorted(current, key=lambda name: (name != PLATFORM, name)):
        with suppress(PolicyRefused):  # it is in `problems`
            parts.offer(name, current[name].raw)
        for raw in current[name].denials.values():
            with suppress(PolicyRefused):
                parts.offer(DENIAL, raw)
    return parts, current


async def push_content(
    store: PolicyStore,
    anchors: Mapping[str, PublicKey],
    name: str,
    content: Content,
    key: SigningKey,
    check: Check | None = None,
) -> Pushed:
    """Sign the bundle that `content` makes and push it as the part `name`, under the serial after the current one.

    Denials of the platform stay in force even if `content` lacks them: only `forget` ends a denial. Raises `PolicyRefused`
    for a bundle that consumers would refuse, `ConfigurationError` if another push came first.
    """
    parts, current = await stored_parts(store, anchors)
    bundle = _with_denials(parts, name, content(await _next_serial(store, parts, name)))
    return await _push(store, parts, current, name, sign_bundle(bundle, key, scope=name), check)


async def push_signed(
    store: PolicyStore, anchors: Mapping[str, PublicKey], name: str, raw: bytes, check: Check | None = None
) -> Pushed:
    """Push a bundle that was signed elsewhere, with its own serial.

    Raises as above, and `ConfigurationError` for a platform bundle that would end a denial.
    """
    parts, current = await stored_parts(store, anchors)
    bundle = read_bundle(raw)
    if _with_denials(parts, name, bundle) is not bundle:
        raise ConfigurationError(
            "the bundle lacks denials that are in force (sealbus deny ls): sign it here with --key, which keeps them, "
            "or remove them first"
        )
    return await _push(store, parts, current, name, bundle, check)


async def roll_back(
    store: PolicyStore,
    anchors: Mapping[str, PublicKey],
    name: str,
    serial: int,
    key: SigningKey,
    check: Check | None = None,
) -> Pushed:
    """Push `name` as it was under `serial` again, as the newest. Raises as above, and if that serial is not kept."""
    old = read_bundle(await store.former(name, serial))
    return await push_content(store, anchors, name, lambda new: _repack(old, old.data, new, old.revision), key, check)


async def change_platform(
    store: PolicyStore, anchors: Mapping[str, PublicKey], change: Callable[[DataDocument], None], key: SigningKey
) -> Pushed:
    """Push the platform's bundle in force with its data changed by `change`. Raises as above."""

    def content(serial: int) -> Bundle:
        platform = parts.bundle(PLATFORM)
        if platform is None:
            raise ConfigurationError("there is no platform's bundle in force: push one first")
        # A new copy: the bundle in force must not be changed in place.
        data = read_bundle(platform.raw).data
        for denial in parts.denials:
            data = with_denial(data, denial.data)
        change(data)
        return _repack(platform, data, serial, "")

    parts, current = await stored_parts(store, anchors)
    bundle = sign_bundle(content(await _next_serial(store, parts, PLATFORM)), key, scope=PLATFORM)
    return await _push(store, parts, current, PLATFORM, bundle, None)


async def push_denial(
    store: PolicyStore, anchors: Mapping[str, PublicKey], change: Callable[[DataDocument], None], key: SigningKey
) -> Pushed:
    """Push the one denial that `change` adds, by itself (`sealbus.policies.bundle.denials`).

    This reads no bundle. With `MOST_DENIALS` since the platform's bundle it pushes a new one, as `change_platform` does.
    Raises `ConfigurationError` for a key that signs no platform's bundle and for a denial of no valid id, `BusUnavailable`.
    """
    if key_id(key.public) not in anchors:
        raise ConfigurationError("the key is not one of policy.keys: no process would take what it signs")
    data: DataDocument = {}
    change(data)
    for _ in range(TRIES):
        last, count = await store.last_serial(PLATFORM)
        if not last:
            raise ConfigurationError("there is no platform's bundle in force: push one first")
        if count >= MOST_DENIALS:
            return await change_platform(store, anchors, change, key)
        try:
            entry = pack_denial(data, last + 1)
        except PolicyRefused as refused:
            raise ConfigurationError(refused.detail) from refused
        if await store.deny(sign_bundle(entry, key, scope=DENIAL).raw, entry.serial):
            return Pushed(name=PLATFORM, serial=entry.serial, composed="", fallen={})
    raise ConfigurationError("other pushes came first; try again")


def content_of(source: Path, *, revision: str = "") -> Content:
    """Return the content of a policy folder, or of a bundle file. Raises `PolicyRefused`, `ConfigurationError`; blocks."""

    def content(serial: int) -> Bundle:
        if source.is_dir():
            return build_bundle(source, revision=revision, serial=serial, part=True)
        with file_errors(f"{source} cannot be read"):
            bundle = read_bundle(source.read_bytes())
        return _repack(bundle, bundle.data, serial, revision or bundle.revision)

    return content


async def _push(
    store: PolicyStore,
    parts: PartSet,
    current: Mapping[str, StoredPart],
    name: str,
    bundle: Bundle,
    check: Check | None,
) -> Pushed:
    last, denials = (current[name].last, current[name].denials.keys()) if name in current else (0, frozenset[int]())
    refused = denials - {denial.serial for denial in parts.denials}
    if refused and parts.bundle(name) is not None:
        objects = ", ".join(f"{name}@{serial}" for serial in sorted(refused))
        raise ConfigurationError(
            f"denials in the store are refused here, and this bundle would end them: name their key in policy.keys, or "
            f"remove these objects from the bucket: {objects}"
        )
    before = {part.name for part in parts.parts}
    parts.offer(name, bundle.raw)
    if check is not None and parts.composed is not None:
        await asyncio.to_thread(check, parts.composed)
    await store.push(name, bundle.raw, bundle.serial, last=last, denials=denials)
    fallen = {team: parts.problems.get(team, "") for team in sorted(before - {part.name for part in parts.parts})}
    composed = parts.composed
    return Pushed(
        name=name, serial=bundle.serial, composed=composed.revision if composed is not None else "", fallen=fallen
    )


def _with_denials(parts: PartSet, name: str, bundle: Bundle) -> Bundle:
    """Return `bundle`; if it is the platform's and lacks denials in force, with these added."""
    current = parts.platform_data()
    if name != PLATFORM or current is None:
        return bundle
    data = read_bundle(bundle.raw).data
    return _repack(bundle, data, bundle.serial, bundle.revision) if carry(data, current) else bundle


async def _next_serial(store: PolicyStore, parts: PartSet, name: str) -> int:
    """Return a serial after all pushed ones, whether or not the current bundle is in force (its signer may differ)."""
    bundle = parts.bundle(name)
    last, _ = await store.last_serial(name)
    return max(bundle.serial if bundle is not None else 0, last) + 1


def _repack(bundle: Bundle, data: DataDocument, serial: int, revision: str) -> Bundle:
    modules = {module.path: module.text.encode() for module in bundle.modules}
    return read_bundle(pack_bundle(modules, data, Manifest(revision=revision, roots=bundle.roots, serial=serial)))
