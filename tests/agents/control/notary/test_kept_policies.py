"""Policies in a notary's folder and in its log: kept before they are recorded, recorded once, by whichever process."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from support.notary import NOTARY as NOTARY_ID
from support.notary import Bench, own_records, read_log
from support.policies import bundle

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.policy_archive import PolicyArchive, policy_record, record_path
from sealbus.envelopes.errors import Code, LogError, StateUnavailable
from sealbus.envelopes.export.policy_files import policy_path
from sealbus.envelopes.records.notary import CheckpointRecord, PolicyRecord
from sealbus.policies.bundle.format import Bundle

ONE, OTHER = bundle(revision="one"), bundle(revision="other", answers={})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "log")


def recorded(bench: Bench) -> list[PolicyRecord]:
    return [one for one in own_records(bench.broker.streams["AUDIT"].stored) if isinstance(one, PolicyRecord)]


def archive_of(*bundles: Bundle) -> PolicyArchive:
    archive = PolicyArchive()
    for one in bundles:
        archive.offer(one)
    return archive


async def archived(bench: Bench, archive: PolicyArchive, folder: Path | None = None) -> None:
    """Run a notary until nothing is left to be archived, and all is under a checkpoint."""
    store = FolderStore(folder or bench.folder)
    async with bench.running(store=store, policies=archive):
        await bench.until(lambda: archive.next_offered() is None)
        bench.record()
        await bench.sealed(bench.stored(), folder)


async def test_a_policy_is_kept_recorded_and_logged_once(bench: Bench) -> None:
    await archived(bench, archive_of(ONE, OTHER))
    assert recorded(bench) == [policy_record(ONE), policy_record(OTHER)]
    assert [record.revision for record in recorded(bench)] == ["one", "other"]
    for one in (ONE, OTHER):
        assert (bench.folder / policy_path(sha256(one.raw).digest())).read_bytes() == one.raw
        assert (bench.folder / record_path(policy_record(one))).read_bytes() == policy_record(one).encode()
    # Another process is told the same, and records nothing anew.
    await archived(bench, archive_of(OTHER, ONE))
    assert len(recorded(bench)) == 2
    await read_log(bench.broker.connect(), bench.folder, NOTARY_ID, whole=False)


async def test_what_was_kept_and_never_recorded_is_recorded_at_the_next_start(bench: Bench) -> None:
    store = FolderStore(bench.folder)
    store.enter()
    store.claim(0)
    store.keep(0, {policy_path(ONE.digest): ONE.raw})
    store.leave()
    with pytest.raises(StateUnavailable, match="not entered"):
        store.keep(0, {})
    await archived(bench, archive_of())
    assert recorded(bench) == [policy_record(ONE)]


async def test_nothing_is_recorded_that_is_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: FolderStore, fence: int, files: object) -> None:
        raise StateUnavailable("the disk is full")

    archive = archive_of(ONE)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "keep", full)
        async with bench.running(policies=archive) as notary:
            await bench.until(lambda: "full" in notary.problem)
    assert recorded(bench) == []
    await archived(bench, archive)
    assert recorded(bench) == [policy_record(ONE)]


@pytest.mark.slow
async def test_a_notary_with_another_folder_looks_for_what_the_first_recorded(bench: Bench, tmp_path: Path) -> None:
    await archived(bench, archive_of(ONE))
    archive = archive_of()
    store = FolderStore(tmp_path / "second")
    async with bench.running(store=store, policies=archive):
        await bench.until(lambda: archive.is_recorded(ONE.digest))
        assert await archive.next_wanted() == "one"
        archive.offer(ONE)
        await bench.until(lambda: archive.next_offered() is None)
    assert store.get(policy_path(ONE.digest)) == ONE.raw
    assert len(recorded(bench)) == 1


async def test_the_revisions_of_decisions_are_looked_for(bench: Bench) -> None:
    archive = archive_of(ONE)
    async with bench.running(policies=archive) as notary:
        bench.decide("one")
        # A list of revocations is no policy, and is not looked for: there is a new one every second at worst.
        bench.decide("revocations-7", engine="revocations")
        bench.decide("gone")
        assert await archive.next_wanted() == "gone"
        assert notary.note == "no policy is followed"
        archive.offer(bundle(revision="gone"))
        await bench.until(lambda: archive.next_offered() is None)
    assert {record.revision for record in recorded(bench)} == {"one", "gone"}


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (policy_path(ONE.digest), b"no bundle"),
        (policy_path(ONE.digest), OTHER.raw),
        (record_path(policy_record(ONE)), b"no record"),
        (record_path(policy_record(ONE)), CheckpointRecord(note=b"note").encode()),
        (record_path(policy_record(ONE)), policy_record(OTHER).encode()),
    ],
)
async def test_files_that_are_not_what_their_names_say_end_it(bench: Bench, path: str, data: bytes) -> None:
    (bench.folder / path).parent.mkdir(parents=True)
    (bench.folder / path).write_bytes(data)
    async with bench.notary() as notary:
        with pytest.raises(LogError) as caught:
            await notary.run()
    assert caught.value.code is Code.LOG_MISMATCH
