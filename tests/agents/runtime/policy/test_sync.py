"""Parts from the store to the file that engines watch: taken, refused, kept over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lab import Lab, until
from support.policies import put, signing_key
from support.teams import naming, revocations, signed_platform, signed_team, team_policy

from sealbus.agents.runtime.policy import sync as policy_sync
from sealbus.agents.runtime.policy.deny_list import denials
from sealbus.agents.runtime.policy.push import push_content
from sealbus.agents.runtime.policy.store import BEHIND, TRIES, PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, kept_parts, policy_synced
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.bus.streams.object_store import ObjectInfo
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import SigningKey, key_id
from sealbus.policies.bundle.denials import DENIAL, pack_denial
from sealbus.policies.bundle.files import load_bundle, write_file
from sealbus.policies.bundle.format import Bundle, read_bundle
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.documents import DataDocument

pytestmark = pytest.mark.nats

ROOT, STOCK, MONEY = signing_key(), signing_key(), signing_key()
TEAMS = {"stock": STOCK, "money": MONEY}
ANCHORS = {key_id(ROOT.public): ROOT.public}


async def push(store: PolicyStore, name: str, raw: bytes, serial: int = 1) -> None:
    before = await store.read(name)
    await store.push(name, raw, serial, last=before.last if before is not None else 0)


async def push_all(store: PolicyStore) -> None:
    await push(store, "stock", signed_team("stock", STOCK))
    await push(store, "money", signed_team("money", MONEY))
    await push(store, "platform", signed_platform(ROOT, TEAMS))


@asynccontextmanager
async def synced(store: PolicyStore, folder: Path, counters: Counters | None = None) -> AsyncIterator[PolicySync]:
    async with policy_synced(PolicySync(store, folder, ANCHORS, counters=counters)) as sync:
        yield sync


def revision(sync: PolicySync) -> str:
    found = load_bundle(sync.bundle)
    assert sync.in_force.bundle is not None
    assert found.raw == sync.in_force.bundle.raw
    return found.revision.partition(".")[2]


async def until_in_force(sync: PolicySync, parts: str) -> None:
    await until(lambda: decided_by(sync) == parts)
    # The file comes after.
    await until(lambda: load_bundle(sync.bundle).revision.endswith(f".{parts}"))
    assert revision(sync) == parts


def decided_by(sync: PolicySync) -> str:
    return sync.in_force.bundle.revision.partition(".")[2] if sync.in_force.bundle is not None else ""


async def test_what_is_pushed_comes_into_the_file(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    async with synced(store, tmp_path / "cache") as sync:
        assert revision(sync) == "platform-1.money-1.stock-1"
        assert sync.problem == ""
        await push(store, "stock", signed_team("stock", STOCK, serial=2), 2)
        await until_in_force(sync, "platform-1.money-1.stock-2")


@pytest.mark.parametrize("what", ["description", "bytes"])
async def test_a_replica_that_is_behind_does_not_hide_what_was_pushed(
    store: PolicyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing else is pushed after it: what is missed now would be missed for long."""
    await push(store, "platform", naming(ROOT, TEAMS, STOCK, serial=1))
    await push(store, "revocations", revocations(STOCK))
    other = PolicyStore(store.objects._cell.connection, "policies")
    async with synced(store, tmp_path / "cache") as sync:
        await until(lambda: sync.in_force.revocations.serial == 1)
        old, behind = await store.objects.info("revocations"), [True]
        info, get, loop = store.objects.info, store.objects.get, asyncio.get_running_loop()
        first: list[float] = []

        async def old_info(name: str) -> ObjectInfo | None:
            return old if name == "revocations" and behind and behind.pop() else await info(name)

        async def no_bytes(one: ObjectInfo) -> bytes | None:
            first.append(loop.time())
            return None if loop.time() < first[0] + BEHIND / 2 else await get(one)

        if what == "description":
            monkeypatch.setattr(store.objects, "info", old_info)
        else:
            monkeypatch.setattr(store.objects, "get", no_bytes)
        await push(other, "revocations", revocations(STOCK, 2, session="s-2"), 2)
        await until(lambda: sync.in_force.revocations.serial == 2)
        await until(lambda: not sync.problem)
        assert first or not behind


async def test_what_is_refused_is_told_and_changes_nothing(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    counters = Counters()
    async with synced(store, tmp_path / "cache", counters) as sync:
        for number, raw in enumerate(
            (
                signed_team("stock", MONEY, serial=2),
                signed_team("stock", STOCK, serial=1, data={}),
                signed_team("stock", STOCK, team_policy("money"), serial=2),
                b"junk",
            )
        ):
            await push(store, "stock", raw, number + 2)
            await until(lambda number=number: counters.value("sealbus_policy_refused_total") == number + 1)  # type: ignore[misc]  # mypy knows no type for it
            assert revision(sync) == "platform-1.money-1.stock-1"
            assert sync.problem.startswith("stock: ")
        # Neither does it hold up the other team.
        await push(store, "money", signed_team("money", MONEY, serial=2), 2)
        await until_in_force(sync, "platform-1.money-2.stock-1")
        await push(store, "stock", signed_team("stock", STOCK, serial=7), 7)
        await until_in_force(sync, "platform-1.money-2.stock-7")
        assert sync.problem == ""


async def test_it_lasts_over_a_restart_without_the_store_and_takes_nothing_older(
    lab: Lab, store: PolicyStore, tmp_path: Path
) -> None:
    await push_all(store)
    await push(store, "stock", signed_team("stock", STOCK, serial=5), 5)
    async with synced(store, tmp_path / "cache"):
        pass
    # What they compose to is not kept for its own sake.
    (tmp_path / "cache" / "composed" / "bundle.tar.gz").unlink()
    async with lab.connection("a") as other, synced(PolicyStore(other, "nowhere"), tmp_path / "cache") as sync:
        assert revision(sync) == "platform-1.money-1.stock-5"
        assert "does not exist" in sync.problem
    # Somebody who can write to the store puts a genuine old bundle there.
    await push(store, "stock", signed_team("stock", STOCK, serial=4), 4)
    async with synced(store, tmp_path / "cache") as sync:
        assert revision(sync) == "platform-1.money-1.stock-5"
        assert "not after 5" in sync.problem


async def test_the_kept_parts_are_verified_again(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    async with synced(store, tmp_path / "cache"):
        pass
    put(signed_team("stock", MONEY, serial=9), tmp_path / "cache" / "parts" / "stock.tar.gz")
    async with synced(store, tmp_path / "cache") as sync:
        assert revision(sync) == "platform-1.money-1.stock-1"


async def test_without_any_policy_it_does_not_start(store: PolicyStore, connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing was pushed yet"):
        await PolicySync(store, tmp_path / "one", ANCHORS).start()
    with pytest.raises(ConfigurationError, match="does not exist"):
        await PolicySync(PolicyStore(connection, "nowhere"), tmp_path / "two", ANCHORS).start()
    await push(store, "platform", signed_platform(STOCK, TEAMS))
    with pytest.raises(ConfigurationError, match="may not sign"):
        await PolicySync(store, tmp_path / "three", ANCHORS).start()


class Disk:
    """Writes bundles while it has room for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = self.full_for_parts = False
        monkeypatch.setattr(policy_sync, "write_file", self.write)
        monkeypatch.setattr(policy_sync, "AGAIN_AFTER", 0.01)

    def write(self, raw: bytes, file: Path, *, durable: bool = True) -> None:
        if self.full or (self.full_for_parts and file.parent.name == "parts"):
            raise OSError(28, "No space left on device")
        write_file(raw, file, durable=durable)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_a_full_disk_holds_up_no_push_and_is_tried_again(store: PolicyStore, tmp_path: Path, disk: Disk) -> None:
    await push_all(store)
    async with synced(store, tmp_path / "cache") as sync:
        disk.full = True
        for serial in (2, 3):
            await push(store, "stock", signed_team("stock", STOCK, serial=serial), serial)
            await until(lambda serial=serial: decided_by(sync) == f"platform-1.money-1.stock-{serial}")  # type: ignore[misc]  # mypy knows no type for it
        await until(lambda: "No space left on device" in sync.problem)
        assert load_bundle(sync.bundle).revision.endswith(".platform-1.money-1.stock-1")
        disk.full = False
        await until(lambda: sync.problem == "")
        assert revision(sync) == "platform-1.money-1.stock-3"


async def test_a_process_starts_on_a_full_disk(
    lab: Lab, store: PolicyStore, tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    await push_all(store)
    async with synced(store, tmp_path / "cache"):
        pass
    await push(store, "stock", signed_team("stock", STOCK, serial=2), 2)
    disk.full = True
    async with synced(store, tmp_path / "cache") as sync:
        assert decided_by(sync) == "platform-1.money-1.stock-2"
        assert "No space left on device" in sync.problem
        await push(store, "money", signed_team("money", MONEY, serial=2), 2)
        await until(lambda: decided_by(sync) == "platform-1.money-2.stock-2")
        assert caplog.text.count("No space left on device") == 1
        # In this order: a thread may be writing.
        disk.full_for_parts = True
        disk.full = False
        await until(lambda: load_bundle(sync.bundle).revision.endswith(".platform-1.money-2.stock-2"))
        assert "No space left on device" in sync.problem
    # What could not be kept as it was signed is not known after a restart, until the store is read.
    disk.full_for_parts = False
    async with lab.connection("a") as other, synced(PolicyStore(other, "nowhere"), tmp_path / "cache") as sync:
        assert revision(sync) == "platform-1.money-1.stock-1"
    async with synced(store, tmp_path / "cache") as sync:
        assert revision(sync) == "platform-1.money-2.stock-2"
        assert sync.problem == ""


async def test_a_folder_that_cannot_be_made_is_a_problem(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    (tmp_path / "cache").write_bytes(b"")
    async with synced(store, tmp_path / "cache") as sync:
        assert decided_by(sync) == "platform-1.money-1.stock-1"
        assert f"cannot be kept in {tmp_path / 'cache'}" in sync.problem


async def test_revocations_are_in_force_at_once_and_after_a_restart(store: PolicyStore, tmp_path: Path) -> None:
    revoker = signing_key()
    await push_all(store)
    await push(store, "platform", naming(ROOT, TEAMS, revoker, serial=2), 2)
    folder = tmp_path / "cache"
    async with synced(store, folder) as sync:
        assert not sync.in_force.revocations
        composed = sync.in_force.bundle
        await push(store, "revocations", revocations(revoker))
        await until(lambda: sync.in_force.revocations.sessions == {("https://idp.example", "s-1")})
        await until((folder / "parts" / "revocations.tar.gz").exists)
        assert sync.in_force.bundle is composed
        await push(store, "revocations", revocations(revoker, 2, session="s-2"), 2)
        await until(lambda: sync.in_force.revocations.revision == "revocations-2")
        kept = folder / "parts" / "revocations.tar.gz"
        await until(lambda: kept.read_bytes() == revocations_kept(sync))
    # By what the folder has, before the store is read.
    again = PolicySync(store, folder, ANCHORS)
    again._restore()
    assert again.parts.revocations.sessions == {("https://idp.example", "s-2")}
    async with policy_synced(again):
        assert again.in_force.revocations.sessions == {("https://idp.example", "s-2")}


def revocations_kept(sync: PolicySync) -> bytes:
    found = sync.parts.bundle("revocations")
    return found.raw if found is not None else b""


async def test_a_bucket_that_was_emptied_takes_nothing_out_of_force(
    store: PolicyStore, connection: Connection, tmp_path: Path
) -> None:
    """Whoever may publish one subject of it can do that, by a header that nats-server takes from everybody."""
    revoker = signing_key()
    await push(store, "platform", naming(ROOT, {}, revoker, serial=1))
    await push(store, "revocations", revocations(revoker))
    folder = tmp_path / "cache"
    async with synced(store, folder) as sync:
        await until((folder / "parts" / "revocations.tar.gz").exists)
        emptying = Outgoing(subject="$O.policies.C.revocations1", payload=b"", headers={"Nats-Rollup": "all"})
        await NatsTransport(connection).publish([emptying], deadline=60.0)
        assert await store.current() == {}
        assert sync.in_force.revocations.sessions == {("https://idp.example", "s-1")}
    async with synced(store, folder) as again:
        assert again.in_force.revocations.sessions == {("https://idp.example", "s-1")}
        # What is pushed then is followed as before.
        await push(store, "platform", naming(ROOT, {}, revoker, serial=2), 2)
        await push(store, "revocations", revocations(revoker, 2, session="s-2"), 2)
        await until(lambda: again.in_force.revocations.sessions == {("https://idp.example", "s-2")})


async def deny(store: PolicyStore, identity: str, serial: int, key: SigningKey = ROOT) -> None:
    data: DataDocument = {"sealbus": {"registry": {"revoked": {"users": {identity: {}}}}}}
    assert await store.deny(sign_bundle(pack_denial(data, serial), key, scope=DENIAL).raw, serial)


async def test_a_denial_by_itself_comes_in_force_and_into_the_file_of_an_opa(
    store: PolicyStore, tmp_path: Path
) -> None:
    await push_all(store)
    await deny(store, "eve", 2)
    counters = Counters()
    async with synced(store, tmp_path / "cache", counters) as sync:
        assert revision(sync) == "platform-2.money-1.stock-1"
        await deny(store, "dave", 3)
        await until_in_force(sync, "platform-3.money-1.stock-1")
        assert "dave" in str(load_bundle(sync.bundle).data)
        assert counters.value("sealbus_policy_accepted_total", part=DENIAL) == 2
        assert sync.problem == ""


async def test_a_process_that_decides_itself_packs_nothing(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    folder = tmp_path / "cache"
    async with synced(store, folder) as sync:
        assert sync.bundle.exists()
    async with policy_synced(PolicySync(store, folder, ANCHORS, for_opa=False)) as sync:
        assert not sync.bundle.exists()
        await deny(store, "eve", 2)
        await until(lambda: decided_by(sync) == "platform-2.money-1.stock-1")
        await until(lambda: len(list((folder / "parts").glob("platform@2-*.tar.gz"))) == 1)
        assert not sync.bundle.exists()


async def test_denials_last_over_a_restart_without_the_store_until_a_bundle_has_them(
    lab: Lab, store: PolicyStore, tmp_path: Path
) -> None:
    await push_all(store)
    folder = tmp_path / "cache"
    async with synced(store, folder) as sync:
        # As many that the names of their files are not in the order of their serials.
        for serial in range(2, 12):
            await deny(store, f"user-{serial}", serial)
        await until_in_force(sync, "platform-11.money-1.stock-1")
        # The file for an OPA is written first, and then they.
        await until(lambda: len(list((folder / "parts").glob("platform@*.tar.gz"))) == 10)
        digest = sync.in_force.bundle.digest if sync.in_force.bundle is not None else b""
    await lab.server.kill9()
    async with synced(store, folder) as sync:
        assert revision(sync) == "platform-11.money-1.stock-1"
        assert sync.in_force.bundle is not None
        assert sync.in_force.bundle.digest == digest
        await lab.server.restart()
        await until(lambda: not sync.problem)
        await push_content(store, ANCHORS, "platform", lambda serial: platform_naming(TEAMS, serial), ROOT)
        await until_in_force(sync, "platform-12.money-1.stock-1")
        await until(lambda: sync.unkept == "" and not list((folder / "parts").glob("platform@*")))
        assert await store.denials(after=0) == {}
        found = sync.parts.platform_data()
        assert found is not None
        assert [one.id for one in denials(found)] == sorted(f"user-{serial}" for serial in range(2, 12))


def platform_naming(teams: Mapping[str, SigningKey], serial: int) -> Bundle:
    return read_bundle(signed_platform(ROOT, teams, serial=serial))


async def test_a_denial_by_another_key_is_told_and_changes_nothing(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    counters = Counters()
    async with synced(store, tmp_path / "cache", counters) as sync:
        await deny(store, "eve", 2, STOCK)
        await until(lambda: counters.value("sealbus_policy_refused_total", part=DENIAL) == 1)
        assert revision(sync) == "platform-1.money-1.stock-1"
        assert "may not sign" in sync.problem
        await deny(store, "dave", 3)
        await until_in_force(sync, "platform-3.money-1.stock-1")
        # It is told until a bundle has it.
        assert "may not sign" in sync.problem


async def deny_with_a_damaged_one(store: PolicyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Push a good denial, one whose bytes are lost, and a good one."""

    async def lose(messages: list[Outgoing]) -> None:
        del messages

    await deny(store, "first", 2)
    other = PolicyStore(store.objects._cell.connection, "policies")
    monkeypatch.setattr(other.objects, "_publish", lose)
    await deny(other, "lost", 3)
    await deny(store, "mallory", 4)


async def test_a_damaged_denial_holds_up_no_other_and_is_told(
    store: PolicyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push_all(store)
    async with synced(store, tmp_path / "cache") as sync:
        await deny_with_a_damaged_one(store, monkeypatch)
        await until_in_force(sync, "platform-4.money-1.stock-1")
        await until(lambda: "platform@3" in sync.problem)
        await deny(store, "carol", 5)
        await until_in_force(sync, "platform-5.money-1.stock-1")
    # With a policy of its own a process starts, and says so.
    async with synced(store, tmp_path / "cache") as sync:
        assert decided_by(sync) == "platform-5.money-1.stock-1"
        assert "platform@3" in sync.problem


async def test_without_a_policy_of_its_own_a_process_starts_with_all_denials_or_not_at_all(
    store: PolicyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_sync, "AGAIN_AFTER", 0.01)
    monkeypatch.setattr("sealbus.agents.runtime.policy.store.BEHIND", 0.01)
    await push_all(store)
    await deny_with_a_damaged_one(store, monkeypatch)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="platform@3"):
            await PolicySync(store, tmp_path / "new", ANCHORS).start()
    get, times = store.objects.get, [0]

    async def late(info: ObjectInfo) -> bytes | None:
        times[0] += info.name == "platform@3"
        if info.name == "platform@3" and times[0] > TRIES + 2:
            data: DataDocument = {"sealbus": {"registry": {"revoked": {"users": {"lost": {}}}}}}
            return sign_bundle(pack_denial(data, 3), ROOT, scope=DENIAL).raw
        return await get(info)

    monkeypatch.setattr(store.objects, "get", late)
    sync = PolicySync(store, tmp_path / "other", ANCHORS)
    await sync.start()
    assert [one.serial for one in sync.parts.denials] == [2, 3, 4]


@pytest.mark.parametrize(("name", "starts"), [("stock", True), ("revocations", False)])
async def test_a_new_process_waits_for_a_damaged_part_only_if_it_says_who_is_denied(
    store: PolicyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, starts: bool
) -> None:
    monkeypatch.setattr(policy_sync, "AGAIN_AFTER", 0.01)
    monkeypatch.setattr("sealbus.agents.runtime.policy.store.BEHIND", 0.01)
    await push_all(store)
    await push(store, "platform", naming(ROOT, TEAMS, STOCK, serial=2), 2)
    await push(store, "revocations", revocations(STOCK))
    get, damaged = store.objects.get, [True]

    async def without_bytes(info: ObjectInfo) -> bytes | None:
        return None if info.name == name and damaged else await get(info)

    monkeypatch.setattr(store.objects, "get", without_bytes)
    sync = PolicySync(store, tmp_path / "new", ANCHORS)
    if not starts:
        with pytest.raises(ConfigurationError, match=f"not all of the store was read: {name}"):
            await sync.start()
        damaged.clear()
    async with policy_synced(sync):
        assert decided_by(sync) == ("platform-2.money-1" if starts else "platform-2.money-1.stock-1")
        assert sync.in_force.revocations.serial == 1
        assert (name in sync.problem) is starts


async def test_a_damaged_file_of_a_denial_is_written_again(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    await deny(store, "eve", 2)
    folder = tmp_path / "cache"
    async with synced(store, folder):
        pass
    [file] = (folder / "parts").glob("platform@2-*")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    async with synced(store, folder):
        assert file.read_bytes() == whole


async def test_a_denial_under_the_serial_of_one_that_is_gone_counts_too(store: PolicyStore, tmp_path: Path) -> None:
    """The store lost one, as after a restore, and gave its serial again."""
    await push_all(store)
    folder = tmp_path / "cache"
    async with synced(store, folder) as sync:
        await deny(store, "first", 2)
        await until_in_force(sync, "platform-2.money-1.stock-1")
        info = await store.objects.info("platform@2")
        assert info is not None
        await store.objects.remove(info)
        await deny(store, "second", 2)
        await until(lambda: len(sync.parts.denials) == 2)
        await until(lambda: len(list((folder / "parts").glob("platform@2-*"))) == 2)
    async with synced(store, folder) as sync:
        found = sync.parts.platform_data()
        assert found is not None
        assert [one.id for one in denials(found)] == ["first", "second"]


def test_kept_denials_are_read_in_the_order_of_their_serials(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    names = ["platform", "money", *(f"platform@{serial}-{serial:x}" for serial in (9, 10, 99, 100))]
    for name in names:
        (parts / f"{name}.tar.gz").write_bytes(name.encode())
    found = list(kept_parts(tmp_path))
    assert [raw.decode() for _, raw in found] == names
    assert [name for name, _ in found] == ["platform", "money", *[DENIAL] * 4]


async def test_what_was_kept_is_not_removed_for_a_key_that_is_missing(store: PolicyStore, tmp_path: Path) -> None:
    await push_all(store)
    both = {**ANCHORS, key_id(STOCK.public): STOCK.public}
    await deny(store, "eve", 2, STOCK)
    folder = tmp_path / "cache"
    for anchors, serials in ((both, [2]), (ANCHORS, []), (both, [2])):
        async with policy_synced(PolicySync(store, folder, anchors)) as sync:
            assert [one.serial for one in sync.parts.denials] == serials
        assert len(list((folder / "parts").glob("platform@2-*"))) == 1
