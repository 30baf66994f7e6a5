"""Pushing: judged before it is written, and numbered after what is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cells import policy
from support.policies import signing_key
from support.teams import signed_platform, signed_team, team

from sealbus.agents.runtime.policy.deny_list import Denial, add, denials, forget
from sealbus.agents.runtime.policy.push import (
    change_platform,
    content_of,
    push_content,
    push_denial,
    push_signed,
    roll_back,
    stored_parts,
)
from sealbus.agents.runtime.policy.store import CameFirst, Known, PolicyStore, SerialState, is_denial
from sealbus.agents.runtime.policy.sync import PolicySync
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.bus.streams.declared import HELD_SECONDS
from sealbus.bus.streams.object_store import ObjectInfo
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.cells import MOVING
from sealbus.policies.bundle.denials import DENIAL, pack_denial, with_denial
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.decision.placement import Placement
from sealbus.policies.lint.module import PolicyRefused

ROOT, STOCK = signing_key(), signing_key()
ANCHORS = {key_id(ROOT.public): ROOT.public}

pytestmark = pytest.mark.nats


async def test_a_refused_push_writes_nothing(store: PolicyStore) -> None:
    with pytest.raises(PolicyRefused, match="names no team"):
        await push_signed(store, ANCHORS, "stock", signed_team("stock", STOCK))
    await push_signed(store, ANCHORS, "platform", signed_platform(ROOT, {"stock": STOCK}))
    with pytest.raises(PolicyRefused, match="may not sign"):
        await push_content(store, ANCHORS, "stock", lambda serial: team("stock", serial=serial), ROOT)
    assert list(await store.current()) == ["platform"]


async def test_what_is_refused_in_the_store_still_counts_for_the_next_serial(store: PolicyStore) -> None:
    await push_signed(store, ANCHORS, "platform", signed_platform(ROOT, {"stock": STOCK}))
    await store.push("stock", signed_team("stock", ROOT, serial=5), 5, last=0)
    parts, current = await stored_parts(store, ANCHORS)
    assert "may not sign" in parts.problems["stock"]
    assert list(current) == ["platform", "stock"]
    pushed = await push_content(store, ANCHORS, "stock", lambda serial: team("stock", serial=serial), STOCK)
    assert pushed.serial == 6
    await store.push("stock", b"junk", 7, last=(await store.current())["stock"].last)
    assert (await push_content(store, ANCHORS, "stock", lambda one: team("stock", serial=one), STOCK)).serial == 8


async def test_the_platform_is_changed_in_place(store: PolicyStore) -> None:
    with pytest.raises(ConfigurationError, match="push one first"):
        await change_platform(store, ANCHORS, add(Denial(kind="user", id="eve")), ROOT)
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    pushed = await change_platform(store, ANCHORS, add(Denial(kind="user", id="eve")), ROOT)
    assert pushed.serial == 2
    parts, _ = await stored_parts(store, ANCHORS)
    platform = parts.bundle("platform")
    assert platform is not None
    assert any(one.id == "eve" for one in denials(platform.data))


async def test_a_denial_ends_by_its_removal_only(store: PolicyStore) -> None:
    async def denied() -> list[str]:
        parts, _ = await stored_parts(store, ANCHORS)
        platform = parts.bundle("platform")
        assert platform is not None
        return [one.id for one in denials(platform.data)]

    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await change_platform(store, ANCHORS, add(Denial(kind="user", id="eve")), ROOT)
    # Neither by the folder from before, nor by what was in force before.
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    assert await denied() == ["eve"]
    assert (await roll_back(store, ANCHORS, "platform", 1, ROOT)).serial == 4
    assert await denied() == ["eve"]
    signed = sign_bundle(build_bundle(STARTER, serial=9), ROOT, scope="platform")
    with pytest.raises(ConfigurationError, match="lacks denials that are in force"):
        await push_signed(store, ANCHORS, "platform", signed.raw)
    await change_platform(store, ANCHORS, forget("user", "eve"), ROOT)
    assert await denied() == []
    await push_signed(store, ANCHORS, "platform", signed.raw)


async def test_a_file_that_is_not_there(store: PolicyStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await push_content(store, ANCHORS, "platform", content_of(tmp_path / "none"), ROOT)


def denial(identity: str) -> Callable[[DataDocument], None]:
    return add(Denial(kind="user", id=identity, at="now"))


MINIMAL = {
    "authz.rego": b"package sealbus.authz\n\ndecision := decide(input)\n\n"
    b"batch := [decide(request) | some request in input.batch]\n\n"
    b'decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if request.v\n'
}


async def denied(store: PolicyStore) -> list[str]:
    parts, _ = await stored_parts(store, ANCHORS)
    data = parts.platform_data()
    assert data is not None
    return [one.id for one in denials(data)]


async def test_a_denial_by_itself_is_numbered_with_the_bundles_and_carried_by_the_next(store: PolicyStore) -> None:
    with pytest.raises(ConfigurationError, match="push one first"):
        await push_denial(store, ANCHORS, denial("eve"), ROOT)
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    first = await push_denial(store, ANCHORS, denial("eve"), ROOT)
    assert (first.name, first.serial, first.composed, first.fallen) == ("platform", 2, "", {})
    assert (await push_denial(store, ANCHORS, denial("dave"), ROOT)).serial == 3
    parts, current = await stored_parts(store, ANCHORS)
    assert parts.composed is not None
    assert parts.composed.revision.endswith(".platform-3")
    assert list(current) == ["platform"]
    assert await store.serials("platform") == [1]
    assert await denied(store) == ["dave", "eve"]
    # The folder from before, a rollback, and a removal.
    assert (await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)).serial == 4
    assert await denied(store) == ["dave", "eve"]
    assert (await roll_back(store, ANCHORS, "platform", 1, ROOT)).serial == 5
    await push_denial(store, ANCHORS, denial("frank"), ROOT)
    assert (await change_platform(store, ANCHORS, forget("user", "eve"), ROOT)).serial == 7
    await change_platform(store, ANCHORS, forget("user", "frank"), ROOT)
    assert await denied(store) == ["dave"]
    with pytest.raises(ConfigurationError, match="serial 6 is not kept; there are 1, 4, 5, 7, 8"):
        await roll_back(store, ANCHORS, "platform", 6, ROOT)


async def test_a_bundle_signed_elsewhere_has_the_denials(store: PolicyStore) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("eve"), ROOT)
    for serial, why in ((9, "lacks denials that are in force"), (2, "lacks denials")):
        signed = sign_bundle(build_bundle(STARTER, serial=serial), ROOT, scope="platform")
        with pytest.raises(ConfigurationError, match=why):
            await push_signed(store, ANCHORS, "platform", signed.raw)
    assert await denied(store) == ["eve"]
    # Nor does a bundle that has it take its serial.
    built = build_bundle(STARTER)
    with_eve = with_denial(built.data, _data(denial("eve")))
    modules = {module.path: module.text.encode() for module in built.modules}
    for serial in (2, 3):
        raw = pack_bundle(modules, with_eve, Manifest(roots=built.roots, serial=serial))
        signed = sign_bundle(read_bundle(raw), ROOT, scope="platform")
        if serial == 2:
            with pytest.raises(ConfigurationError, match="another push came first"):
                await push_signed(store, ANCHORS, "platform", signed.raw)
        else:
            await push_signed(store, ANCHORS, "platform", signed.raw)
    assert await denied(store) == ["eve"]
    assert (await store.serial_state("platform")).last == 3


async def test_a_bundle_signed_elsewhere_says_how_many_denials_it_has(store: PolicyStore, tmp_path: Path) -> None:
    """Else a process that was away would keep one that has ended."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("eve"), ROOT)
    away = PolicySync(store, tmp_path / "away", ANCHORS)
    await away.start()
    await change_platform(store, ANCHORS, forget("user", "eve"), ROOT)
    for number in (0, 1):
        signed = sign_bundle(build_bundle(STARTER, serial=9, denials=number), ROOT, scope="platform")
        with pytest.raises(ConfigurationError, match=f"up to serial {number}, and the one in force has those up to 2"):
            await push_signed(store, ANCHORS, "platform", signed.raw)
    signed = sign_bundle(build_bundle(STARTER, serial=9, denials=2), ROOT, scope="platform")
    await push_signed(store, ANCHORS, "platform", signed.raw)
    back = PolicySync(store, tmp_path / "away", ANCHORS)
    await back.start()
    assert back.parts.denials == ()


async def test_a_bundle_signed_elsewhere_ends_no_denial_of_a_policy_that_is_refused_here(store: PolicyStore) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("eve"), ROOT)
    signed = sign_bundle(build_bundle(STARTER, serial=9, denials=8), STOCK, scope="platform")
    with pytest.raises(ConfigurationError, match="a new one would end its denials"):
        await push_signed(store, {key_id(STOCK.public): STOCK.public}, "platform", signed.raw)


@pytest.mark.parametrize(
    "forged", [b"", b"x", sign_bundle(build_bundle(STARTER, serial=99), STOCK, scope="platform").raw]
)
async def test_a_push_in_the_place_of_a_damaged_or_forged_policy_keeps_the_denials_of_the_last_good_one(
    store: PolicyStore, forged: bytes
) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await change_platform(store, ANCHORS, denial("eve"), ROOT)
    current = (await store.current())["platform"]
    await store.objects.put("platform", forged, last=current.last)
    # Who looks sees that it is refused.
    parts, _ = await stored_parts(store, ANCHORS)
    assert parts.bundle("platform") is None
    assert "platform" in parts.problems
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    assert await denied(store) == ["eve"]
    # Where no bundle is good, nobody knows what was denied.
    with pytest.raises(ConfigurationError, match="a new one would end its denials"):
        await push_content(store, {key_id(STOCK.public): STOCK.public}, "platform", content_of(STARTER), STOCK)


async def test_where_nobody_denied_by_itself_no_number_is_asked_of_a_bundle_signed_elsewhere(
    store: PolicyStore,
) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await change_platform(store, ANCHORS, denial("eve"), ROOT)
    await change_platform(store, ANCHORS, forget("user", "eve"), ROOT)
    signed = sign_bundle(build_bundle(STARTER, serial=9), ROOT, scope="platform")
    assert (await push_signed(store, ANCHORS, "platform", signed.raw)).serial == 9


async def test_what_no_process_would_take_is_not_pushed(store: PolicyStore) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    with pytest.raises(ConfigurationError, match=r"not one of policy\.keys"):
        await push_denial(store, ANCHORS, denial("eve"), STOCK)
    with pytest.raises(ConfigurationError, match="not a SPIFFE ID"):
        await push_denial(store, ANCHORS, add(Denial(kind="workload", id="eve", before=7)), ROOT)
    assert (await store.serial_state("platform")).last == 1


async def test_a_denial_that_comes_while_a_bundle_is_made_is_not_lost(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what the bundle is made of and its serial, and with a serial that leaves room."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)

    def meanwhile(serial: int) -> Bundle:
        return build_bundle(STARTER, serial=serial, part=True)

    other = PolicyStore(store.objects._cell.connection, "policies")
    serial_state, waiting = store.serial_state, ["eve"]

    async def after_a_denial(name: str) -> SerialState:
        if waiting:
            await push_denial(other, ANCHORS, denial(waiting.pop()), ROOT)
        return await serial_state(name)

    monkeypatch.setattr(store, "serial_state", after_a_denial)
    with pytest.raises(ConfigurationError, match="another push came first"):
        await push_content(store, ANCHORS, "platform", meanwhile, ROOT)
    assert await denied(store) == ["eve"]
    assert (await push_content(store, ANCHORS, "platform", meanwhile, ROOT)).serial == 4
    assert await denied(store) == ["eve"]
    # Nor with a serial that leaves room.
    raw = sign_bundle(build_bundle(STARTER, serial=9), ROOT, scope="platform").raw
    current = (await store.current())["platform"]
    await push_denial(other, ANCHORS, denial("dave"), ROOT)
    with pytest.raises(ConfigurationError, match="another push came first"):
        await store.push("platform", raw, 9, last=current.last, known=Known(after=2, serials=frozenset()))
    assert await denied(store) == ["dave", "eve"]


async def test_a_denial_is_made_again_whoever_writes_the_bundle_meanwhile(store: PolicyStore) -> None:
    """Two push the same file, signed elsewhere. The first has looked for denials before this one; the second wrote again."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    signed = sign_bundle(build_bundle(STARTER, serial=9), ROOT, scope="platform").raw
    first = await store.objects.put("platform@9", signed, last=0)
    assert first is not None
    read_up_to = store._read_up_to

    async def written_again(written: ObjectInfo) -> list[ObjectInfo]:
        await store.objects.put("platform@9", signed, last=first.sequence)
        return await read_up_to(written)

    raw = sign_bundle(pack_denial(_data(denial("eve")), 2), ROOT, scope=DENIAL).raw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_read_up_to", written_again)
        assert not await store.deny(raw, 2)


async def test_a_denial_under_an_earlier_serial_than_a_new_bundle_is_made_again(store: PolicyStore) -> None:
    """What denies is behind, and takes a serial that a bundle signed elsewhere left out."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    signed = sign_bundle(build_bundle(STARTER, serial=9), ROOT, scope="platform")
    await push_signed(store, ANCHORS, "platform", signed.raw)
    raw = sign_bundle(pack_denial(_data(denial("eve")), 5), ROOT, scope=DENIAL).raw
    assert not await store.deny(raw, 5)
    assert not await store.deny(raw, 9)
    assert (await push_denial(store, ANCHORS, denial("eve"), ROOT)).serial == 10
    assert await denied(store) == ["eve"]


async def test_no_bundle_ends_a_denial_that_its_operator_cannot_read(store: PolicyStore) -> None:
    """Another operator signs with a key that is not in the settings here, and is in those of processes."""
    both = {**ANCHORS, key_id(STOCK.public): STOCK.public}
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, both, denial("eve"), STOCK)
    await push_denial(store, ANCHORS, denial("dave"), ROOT)
    with pytest.raises(ConfigurationError, match=r"refused here.*: platform@2: .*may not sign"):
        await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    with pytest.raises(ConfigurationError, match=r"refused here"):
        await change_platform(store, ANCHORS, forget("user", "dave"), ROOT)
    await push_content(store, both, "platform", content_of(STARTER), ROOT)
    assert await denied(store) == ["dave", "eve"]


async def test_a_push_by_halves_leaves_the_denials_before_and_after_it_in_force(store: PolicyStore) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("eve"), ROOT)
    await store.objects.put(
        "platform@3", sign_bundle(build_bundle(STARTER, serial=3), ROOT, scope="platform").raw, last=0
    )
    assert (await push_denial(store, ANCHORS, denial("dave"), ROOT)).serial == 4
    assert await denied(store) == ["dave", "eve"]
    assert (await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)).serial == 5
    assert await denied(store) == ["dave", "eve"]


async def test_a_command_of_the_former_release_ends_no_denial(store: PolicyStore) -> None:
    """It counts denials among bundles, and makes its bundle of the platform's alone."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("eve"), ROOT)
    await change_platform(store, ANCHORS, forget("user", "eve"), ROOT)
    await push_denial(store, ANCHORS, denial("carol"), ROOT)
    former = sign_bundle(build_bundle(STARTER, serial=5), ROOT, scope="platform").raw
    current = (await store.current())["platform"]
    await store.objects.put("platform@5", former, last=0)
    await store.objects.put("platform", former, last=current.last)
    assert await denied(store) == ["carol"]
    # Where its bundle is current, nobody knows whether all understand denials by themselves.
    assert (await push_denial(store, ANCHORS, denial("dave"), ROOT)).composed != ""
    assert await denied(store) == ["carol", "dave"]


async def test_where_none_fits_a_denial_comes_with_a_new_bundle(store: PolicyStore, tmp_path: Path) -> None:
    policy = tmp_path / "policy" / "sealbus" / "authz"
    policy.mkdir(parents=True)
    (policy / "authz.rego").write_bytes(MINIMAL["authz.rego"])
    (tmp_path / "policy" / ".manifest").write_text('{"roots": ["sealbus/authz"]}')
    await push_content(store, ANCHORS, "platform", content_of(tmp_path / "policy"), ROOT)
    with pytest.raises(PolicyRefused, match="outside the bundle's roots"):
        await push_denial(store, ANCHORS, denial("eve"), ROOT)
    assert (await store.serial_state("platform")).last == 1


async def test_many_deny_at_once(store: PolicyStore) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    stores = [PolicyStore(store.objects._cell.connection, "policies") for _ in range(12)]
    pushed = await asyncio.gather(
        *(push_denial(one, ANCHORS, denial(f"user-{number}"), ROOT) for number, one in enumerate(stores))
    )
    assert sorted(one.serial for one in pushed) == list(range(2, 14))
    assert len(await denied(store)) == 12


async def test_a_denial_that_comes_while_a_policy_without_room_for_it_is_pushed_is_in_that_policy(
    store: PolicyStore, tmp_path: Path
) -> None:
    """Its rule would be hidden by data. Who denies in between sees that there is no room, and is one of two who push."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    current = (await store.current())["platform"]
    other = PolicyStore(store.objects._cell.connection, "policies")
    put, seen = store.objects.put, list[SerialState]()

    async def meanwhile(name: str, raw: bytes, *, last: int, description: str = "") -> ObjectInfo | None:
        if name == "platform@2":
            seen.append(await other.serial_state("platform"))
        return await put(name, raw, last=last, description=description)

    raw = sign_bundle(build_bundle(STARTER, serial=2), ROOT, scope="platform").raw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.objects, "put", meanwhile)
        await store.push("platform", raw, 2, last=current.last, known=Known(after=0, serials=frozenset()))
    assert [one.takes_denials for one in seen] == [False]
    assert (await store.current())["platform"].raw == raw


async def test_a_denial_that_no_longer_fits_is_in_the_next_bundle(store: PolicyStore, tmp_path: Path) -> None:
    """A command of 0.1.0 pushed a policy without room for it."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("eve"), ROOT)
    current = (await store.current())["platform"]
    narrow = pack_bundle(MINIMAL, {}, Manifest(roots=("sealbus/authz",), serial=3))
    await store.objects.put("platform", sign_bundle(read_bundle(narrow), ROOT, scope="platform").raw, last=current.last)
    with pytest.raises(ConfigurationError, match="a denial does not fit"):
        await PolicySync(store, tmp_path / "cache", ANCHORS).start()
    assert (await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)).composed != ""
    assert await denied(store) == ["eve"]
    assert await store.denials(after=0) == {}
    await PolicySync(store, tmp_path / "cache", ANCHORS).start()


async def test_a_denial_that_ended_does_not_return_with_a_process_that_was_away(
    store: PolicyStore, tmp_path: Path
) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("eve"), ROOT)
    away = PolicySync(store, tmp_path / "away", ANCHORS)
    await away.start()
    assert [one.serial for one in away.parts.denials] == [2]
    await change_platform(store, ANCHORS, forget("user", "eve"), ROOT)
    # Each bundle says that it has all denials before it, also where none is left to read.
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    back = PolicySync(store, tmp_path / "away", ANCHORS)
    await back.start()
    assert back.parts.denials == ()
    fresh = PolicySync(store, tmp_path / "fresh", ANCHORS)
    await fresh.start()
    assert fresh.in_force.bundle is not None
    assert back.in_force.bundle is not None
    assert fresh.in_force.bundle.revision == back.in_force.bundle.revision


async def test_an_object_that_an_operator_removed_is_none(store: PolicyStore) -> None:
    """The `nats` command line leaves a marker in its place."""
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    marker = {"name": "platform@2", "bucket": "policies", "nuid": "x", "size": 0, "chunks": 0, "deleted": True}
    payload = json.dumps(marker).encode()
    transport = NatsTransport(store.objects._cell.connection)
    [answer] = await transport.publish(
        [Outgoing(subject=store.objects._meta("platform@2"), payload=payload)], deadline=5
    )
    assert isinstance(answer, PubAck)
    assert (await push_denial(store, ANCHORS, denial("eve"), ROOT)).serial == 2
    assert await denied(store) == ["eve"]


async def test_the_last_denial_comes_with_a_new_bundle(store: PolicyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealbus.agents.runtime.policy.push.MOST_DENIALS", 2)
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    pushed = [await push_denial(store, ANCHORS, denial(name), ROOT) for name in ("a", "b", "c", "d")]
    assert [(one.serial, bool(one.composed)) for one in pushed] == [(2, False), (3, False), (4, True), (5, False)]
    assert await store.serials("platform") == [1, 4]
    assert await denied(store) == ["a", "b", "c", "d"]
    # Those who come at once when the bundle is due make it one after the other.
    several = [
        push_denial(PolicyStore(store.objects._cell.connection, "policies"), ANCHORS, denial(n), ROOT) for n in "efghi"
    ]
    await asyncio.gather(*several)
    assert await denied(store) == list("abcdefghi")


def answer_once(monkeypatch: pytest.MonkeyPatch, store: PolicyStore, *listings: list[ObjectInfo]) -> None:
    """Let `store` see each of `listings` once, in order, and then what is there."""
    left, present = list(listings), store.objects.objects

    async def objects() -> list[ObjectInfo]:
        return left.pop(0) if left else await present()

    monkeypatch.setattr(store.objects, "objects", objects)


async def test_a_listing_from_which_denials_were_removed_meanwhile_gives_no_serial(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    await push_denial(store, ANCHORS, denial("a"), ROOT)
    listed = await store.objects.objects()
    before = [one for one in listed if not is_denial(one)]
    answer_once(monkeypatch, store, listed, listed, before)
    # What another push has removed is in the first listing alone, and its own bundle in neither.
    with pytest.raises(CameFirst, match="another push came first"):
        await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
    # Who denies meanwhile comes after that other push.
    answer_once(monkeypatch, store, before)
    assert (await push_denial(store, ANCHORS, denial("b"), ROOT)).serial == 3


async def test_a_bundle_that_has_them_takes_the_place_of_denials(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealbus.agents.runtime.policy.store.KEPT", 2)
    for name in ("a", "b", "c"):
        await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
        await push_denial(store, ANCHORS, denial(name), ROOT)
    assert await store.serials("platform") == [3, 5]
    assert list(await store.denials(after=0)) == [6]
    assert await denied(store) == ["a", "b", "c"]


def _data(change: Callable[[DataDocument], None]) -> DataDocument:
    data: DataDocument = {}
    change(data)
    return data


def test_a_move_lasts_for_longer_than_held_keeps_a_value() -> None:
    assert MOVING == (HELD_SECONDS + 86_400) * SECOND


async def test_a_push_checks_the_move_of_an_agent(
    store: PolicyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = wall_clock()

    async def push(**placed: Placement) -> None:
        folder = policy(tmp_path / f"policy-{time.monotonic_ns()}", {"ruler": Placement("east"), **placed}, {})
        await push_content(store, ANCHORS, "platform", content_of(folder), ROOT)

    async def refused(problem: str, **placed: Placement) -> None:
        before = await store.current()
        with pytest.raises(ConfigurationError, match=problem):
            await push(**placed)
        assert await store.current() == before

    # Before the first policy nobody has moved: what was in force is restored as it was.
    begun, moving = Placement("east", "default", now - 1), Placement("east", "default", now + 600 * SECOND)
    await push(works=begun)
    await refused("is being moved")
    await refused("'plans' says `since`", works=begun, plans=Placement("east", "default", now))
    await push(works=begun, plans=moving)
    # Put off, and taken back by a former policy.
    await push(works=begun, plans=Placement("east", "default", moving.since + 1))
    await roll_back(store, ANCHORS, "platform", 1, ROOT)
    await push(works=begun, plans=moving)
    later = moving.since
    monkeypatch.setattr("sealbus.agents.runtime.policy.push.wall_clock", lambda: later)
    await refused("'plans' is being moved", works=begun, plans=Placement("east"))
    # A former policy, and one that was signed elsewhere, are no way round it; a denial changes no cell.
    with pytest.raises(ConfigurationError, match="'plans' is being moved from 'default' to 'east'"):
        await roll_back(store, ANCHORS, "platform", 1, ROOT)
    folder = policy(tmp_path / "signed", {"ruler": Placement("east"), "works": begun}, {})
    signed = sign_bundle(build_bundle(folder, serial=9, part=True), ROOT, scope="platform")
    with pytest.raises(ConfigurationError, match="'plans' is being moved"):
        await push_signed(store, ANCHORS, "platform", signed.raw)
    await change_platform(store, ANCHORS, add(Denial(kind="user", id="eve")), ROOT)
    # After 33 days it ends.
    later = moving.since + MOVING
    await push(works=Placement("east"), plans=Placement("east"))
