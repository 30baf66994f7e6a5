"""Changes of the store by operators and teams: push a part, roll it back, and deny.

Each change is checked before it is written, by the check of every consumer (`PartSet`). So an error reaches only the pusher,
with file and line.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealbus.agents.files import file_errors
from sealbus.agents.runtime.policy.deny_list import carry
from sealbus.agents.runtime.policy.store import MOST_DENIALS, TAKES_DENIALS, CameFirst, Known, PolicyStore, StoredPart
from sealbus.bus.clocks import wall_clock
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, key_id
from sealbus.policies.bundle.cells import cells_of, check_moves
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.denials import DENIAL, pack_denial, takes_denials, with_denial
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.lint.module import PolicyRefused

PATIENCE: Final = 30.0
"""Seconds for which a denial is tried again while others push."""
PAUSES: Final = (0.02, 0.5)
"""Least and most seconds between two tries."""

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
    found = await _stored(store, anchors, to_push=False)
    return found.parts, found.current


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredPolicy:
    """The composition of what the store has, its current bundles, and which denials were read with them."""

    parts: PartSet
    current: dict[str, StoredPart]
    known: Known | None


async def _stored(store: PolicyStore, anchors: Mapping[str, PublicKey], *, to_push: bool = True) -> _StoredPolicy:
    """Return what the store has. To push, the last good bundle of the platform stands for one that is damaged or forged."""
    current = await store.current()
    parts, known = PartSet(anchors), None
    for name in sorted(current, key=lambda name: (name != PLATFORM, name)):
        with suppress(PolicyRefused):  # it is in `problems`
            parts.offer(name, current[name].raw)
    if to_push and PLATFORM in current and parts.bundle(PLATFORM) is None:
        for serial in reversed(await store.serials(PLATFORM)):
            with suppress(ConfigurationError):  # refused, or damaged as well
                parts.offer(PLATFORM, await store.former(PLATFORM, serial))
                break
    platform = parts.bundle(PLATFORM)
    if platform is not None:
        denials = await store.denials(after=platform.denials)
        known = Known(after=platform.denials, serials=denials.keys())
        for raw in denials.values():
            with suppress(PolicyRefused):
                parts.offer(DENIAL, raw)
    return _StoredPolicy(parts=parts, current=current, known=known)


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
    for a bundle that consumers would refuse, `ConfigurationError` if another push came first, and for a move of an agent to
    another cell that may not follow what is in force (`check_moves`).
    """
    found = await _stored(store, anchors)
    bundle = _with_denials(found, name, content(await _next_serial(store, found, name)))
    return await _push(store, found, name, sign_bundle(bundle, key, scope=name), check)


async def push_signed(
    store: PolicyStore, anchors: Mapping[str, PublicKey], name: str, raw: bytes, check: Check | None = None
) -> Pushed:
    """Push a bundle that was signed elsewhere, with its own serial.

    Raises as above, and `ConfigurationError` for a platform bundle that would end a denial, or would let one return that has
    ended.
    """
    found = await _stored(store, anchors)
    bundle = read_bundle(raw)
    if name == PLATFORM:
        await _check_number(store, found, bundle)
    if _carry_denials(found, name, read_bundle(raw).data):
        raise ConfigurationError(
            "the bundle lacks denials that are in force (sealbus deny ls): sign it here with --key, which keeps them, "
            "or remove them first"
        )
    return await _push(store, found, name, bundle, check)


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
        _carry_denials(found, PLATFORM, data)
        change(data)
        return _repack(platform, data, serial, "", denials=_had(found))

    found = await _stored(store, anchors)
    parts = found.parts
    bundle = sign_bundle(content(await _next_serial(store, found, PLATFORM)), key, scope=PLATFORM)
    return await _push(store, found, PLATFORM, bundle, None)


async def push_denial(
    store: PolicyStore, anchors: Mapping[str, PublicKey], change: Callable[[DataDocument], None], key: SigningKey
) -> Pushed:
    """Push the one denial that `change` adds, by itself (`sealbus.policies.bundle.denials`).

    This reads no bundle. It pushes a new one, as `change_platform` does, where the present one takes no denials, and after
    `MOST_DENIALS` since then. Raises `ConfigurationError` for a key that signs no platform's bundle, for a denial of no
    valid id, and if others pushed for `PATIENCE` seconds; `BusUnavailable`.
    """
    if key_id(key.public) not in anchors:
        raise ConfigurationError("the key is not one of policy.keys: no process would take what it signs")
    data: DataDocument = {}
    change(data)
    try:
        pack_denial(data, 1)
    except PolicyRefused as refused:
        raise ConfigurationError(refused.detail) from refused
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while loop.time() < until:
        state = await store.serial_state(PLATFORM)
        if not state.takes_denials or state.denials >= MOST_DENIALS:
            with suppress(CameFirst):
                return await change_platform(store, anchors, change, key)
        else:
            entry = sign_bundle(pack_denial(data, state.last + 1), key, scope=DENIAL)
            if await store.deny(entry.raw, entry.serial):
                return Pushed(name=PLATFORM, serial=entry.serial, composed="", fallen={})
        await asyncio.sleep(random.uniform(*PAUSES))  # noqa: S311  so that others do not come at the same time again
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


async def _push(store: PolicyStore, found: _StoredPolicy, name: str, bundle: Bundle, check: Check | None) -> Pushed:
    parts = found.parts
    if name == PLATFORM:
        _check_known(found)
    known = found.known if name == PLATFORM else None
    if known is not None and (refused := known.serials - {one.serial for one in (*parts.denials, *parts.unfit)}):
        objects = ", ".join(f"{name}@{serial}" for serial in sorted(refused))
        raise ConfigurationError(
            f"denials in the store are refused here, and a new bundle may end them: name their key in policy.keys, or, if "
            f"they are no denials, remove these objects from the bucket: {objects}: {parts.problems.get(DENIAL, '')}"
        )
    before, present = {part.name for part in parts.parts}, parts.platform_data()
    parts.offer(name, bundle.raw)
    _check_cells(present, parts.platform_data())
    composed = parts.composed
    if check is not None and composed is not None:
        await asyncio.to_thread(check, composed)
    takes = name == PLATFORM and composed is not None and await asyncio.to_thread(takes_denials, composed)
    last = found.current[name].last if name in found.current else 0
    description = TAKES_DENIALS if takes else ""
    await store.push(
        name, bundle.raw, bundle.serial, last=last, known=known, had=bundle.denials, description=description
    )
    fallen = {team: parts.problems.get(team, "") for team in sorted(before - {part.name for part in parts.parts})}
    return Pushed(
        name=name, serial=bundle.serial, composed=composed.revision if composed is not None else "", fallen=fallen
    )


def _check_cells(present: DataDocument | None, pushed: DataDocument | None) -> None:
    """Raise `ConfigurationError` for a move of an agent that may not follow what is in force; before a first push all may."""
    if present is not None and pushed is not None:
        check_moves(cells_of(present), cells_of(pushed), wall_clock())


def _check_known(found: _StoredPolicy) -> None:
    """Raise `ConfigurationError` if the store has a bundle of the platform that is refused here: its denials are unknown."""
    if found.known is None and PLATFORM in found.current:
        raise ConfigurationError(
            "the platform's bundle in the store is refused here, and a new one would end its denials: name its key in "
            "policy.keys; if no bundle before it is good either, remove the object platform from the bucket, push, and deny "
            "again: "
            f"{found.parts.problems.get(PLATFORM, '')}"
        )


async def _check_number(store: PolicyStore, found: _StoredPolicy, bundle: Bundle) -> None:
    """Raise `ConfigurationError` if a platform's bundle signed elsewhere has the wrong number of denials in its manifest."""
    _check_known(found)
    platform = found.parts.bundle(PLATFORM)
    if platform is None and bundle.denials and await store.denials(after=0):
        raise ConfigurationError(
            "there is no platform's bundle in force, and denials by themselves: remove these first"
        )
    if platform is not None and bundle.denials < platform.denials:
        raise ConfigurationError(
            f"the bundle says that it has the denials up to serial {bundle.denials}, and the one in force has those up to "
            f"{platform.denials}: a process that was away would put denials in force again that have ended; build it with "
            "sealbus policy build --serial, or write the number as metadata.sealbus.denials into its manifest"
        )


def _carry_denials(found: _StoredPolicy, name: str, data: DataDocument) -> bool:
    """Add to `data`, of a bundle of the platform, the denials that it lacks; return whether there were any.

    They are those in force, and those that did not fit the present bundle.
    """
    current = found.parts.platform_data()
    if name != PLATFORM or current is None:
        return False
    added = [carry(data, one) for one in (current, *(unfit.data for unfit in found.parts.unfit))]
    return any(added)


def _with_denials(found: _StoredPolicy, name: str, bundle: Bundle) -> Bundle:
    """Return `bundle`; if it is the platform's, with the denials that it lacks, and how far it has them."""
    data, had = read_bundle(bundle.raw).data, _had(found)
    if not _carry_denials(found, name, data) and (name != PLATFORM or not had):
        return bundle
    return _repack(bundle, data, bundle.serial, bundle.revision, denials=had)


def _had(found: _StoredPolicy) -> int:
    """Return up to which serial a new bundle of the platform has denials: `push` refuses it if it lacks one.

    None are known where the present bundle is refused.
    """
    return max(found.known.after, *found.known.serials, 0) if found.known is not None else 0


async def _next_serial(store: PolicyStore, found: _StoredPolicy, name: str) -> int:
    """Return a serial after all pushed ones, whether or not the current bundle is in force (its signer may differ).

    Raises `CameFirst` if denials that were read are there no more: then another bundle has them.
    """
    bundle = found.parts.bundle(name)
    state = await store.serial_state(name)
    last = max(bundle.serial if bundle is not None else 0, state.last)
    # A listing is no snapshot: it lacks what is removed meanwhile, and the bundle that was pushed before the removal.
    if name == PLATFORM and last < _had(found):
        raise CameFirst(PLATFORM)
    return last + 1


def _repack(bundle: Bundle, data: DataDocument, serial: int, revision: str, *, denials: int = 0) -> Bundle:
    modules = {module.path: module.text.encode() for module in bundle.modules}
    manifest = Manifest(revision=revision, roots=bundle.roots, serial=serial, denials=denials)
    return read_bundle(pack_bundle(modules, data, manifest))
