"""A whole export verified: in one process and in several, with words for what is wrong and an end whatever it holds."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from independent import verify_export as independent
from support.log_world import NOTARY, Frame, World, encode_frame, entry_of, make_world, note, tree_root
from support.memory_files import MemoryFiles
from vectors.recorded import record_map

from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import KEPT_FINDINGS, Verification, verify_export
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.finding import of_file
from sealbus.envelopes.export.tally import NAME_BYTES, Span
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.trust.merkle import leaf_hash

WORLD = make_world(3, 520)


def root_of(world: World) -> Root:
    return Root.parse(json.dumps(world.root()).encode())


def written(world: World, folder: Path) -> FolderFiles:
    for name, data in world.files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return FolderFiles(folder)


def codes(report: Verification) -> set[tuple[str, str]]:
    return {(finding.place, finding.code) for finding in report.findings}


@pytest.mark.slow
def test_several_processes_find_the_same_as_one(tmp_path: Path) -> None:
    files, root, told = written(WORLD, tmp_path), root_of(WORLD), list[tuple[int, int]]()
    alone = verify_export(files, root, processes=1, progress=lambda done, total: told.append((done, total)))
    together = verify_export(files, root, processes=2)
    assert alone.passed
    assert alone == together
    assert told == [(number, 6) for number in (1, 2, 3, 4, 5, 6)]
    message = tmp_path / "messages" / "001"
    message.write_bytes(message.read_bytes()[:-1])
    alone, together = verify_export(files, root, processes=1), verify_export(files, root, processes=2)
    assert not alone.passed
    assert alone == together


def unproved(world: World) -> Verification:
    """Return what is found by us, where the independent verifier finds something as well or nothing either."""
    document = json.dumps(world.root()).encode()
    report = verify_export(MemoryFiles(world.files()), Root.parse(document), processes=1)
    theirs = independent.verify(world.files(), independent.read_root(document))
    assert {(place, code) for place, code, _ in theirs.findings} == codes(report)
    assert theirs.records == report.tally.records.total()
    return report


def test_a_decision_that_a_notary_says_proves_nothing() -> None:
    world = make_world(2, 30)
    world.decided()
    assert unproved(world).passed
    world.frames[-1] = world.frames[-1]._replace(kind=0)
    assert codes(unproved(world)) == {(f"#{world.sequence}", "bad_entry")}


def test_a_copy_that_proves_nothing_hides_nothing() -> None:
    # Somebody stored a captured message where another's stand: it does not open there, and is no fault of the notary's.
    for kinds in ((1, 0), (0, 1)):
        world = make_world(2, 30)
        world.decided()
        world.put(world.frames[-1].data, kinds[1])
        world.frames[-2] = world.frames[-2]._replace(kind=kinds[0])
        assert unproved(world).passed


def test_what_opens_only_with_a_later_bundle_may_prove_nothing() -> None:
    world = World(Random(1))  # noqa: S311
    world.creation()
    world.record_bundle("k0")

    def denials_by_another_key() -> None:
        world.issuer = "x"
        world.denials()
        world.issuer = "k"
        world.frames[-1] = world.frames[-1]._replace(kind=0)

    denials_by_another_key()
    world.time += 1
    world.record_bundle("k0", "x0")
    assert unproved(world).passed
    denials_by_another_key()
    assert codes(unproved(world)) == {(f"#{world.sequence}", "bad_entry")}


@pytest.mark.slow
def test_records_that_are_repeated_count_once(tmp_path: Path) -> None:
    world = make_world(2, 40)
    before = unproved(world)
    # In the same tile, and again in another one.
    world.repeat(world.first_decided())
    while len(world.frames) < 300:
        world.denials()
    grown = unproved(world)
    at = world.first_decided()
    for _ in range(3):
        world.repeat(at)
    after = unproved(world)
    assert (before.passed, grown.passed, after.passed) == (True, True, True)
    assert grown.tally.records["decision"] == before.tally.records["decision"] == len(world.decisions)
    assert (after.tally.records, after.tally.rows) == (grown.tally.records, grown.tally.rows)
    assert after.tally.entries["verified"] == grown.tally.entries["verified"] + 3
    [(tile, names)] = after.repeated.items()
    assert tile == 1
    assert names >= {leaf_hash(one)[:NAME_BYTES] for one in world.bodies[world.frames[at].data][1]}
    assert verify_export(written(world, tmp_path), root_of(world), processes=2) == after


@pytest.mark.slow
def test_a_span_is_counted_by_row_and_everything_is_verified() -> None:
    files, root = MemoryFiles(WORLD.files()), root_of(WORLD)
    whole = verify_export(files, root, processes=1)
    middle = WORLD.frames[len(WORLD.frames) // 2].stored
    early = verify_export(files, root, processes=1, span=Span(0, middle))
    late = verify_export(files, root, processes=1, span=Span(middle))
    assert early.tally.rows + late.tally.rows == whole.tally.rows
    assert early.tally.records == whole.tally.records


@pytest.mark.parametrize(
    ("changed", "place", "code"),
    [
        ({}, "checkpoint", "missing_file"),
        ({"checkpoint": bytes(9_000)}, "checkpoint", "bad_note"),
        ({"checkpoint": b"no note"}, "checkpoint", "bad_note"),
        ({"checkpoint": note(2**53 - 1, bytes(32), WORLD.keys)}, "messages", "missing_file"),
        ({"checkpoint": note(0, bytes(32), WORLD.keys)}, "checkpoint", "bad_note"),
    ],
)
def test_what_is_hardly_an_export(changed: dict[str, bytes], place: str, code: str) -> None:
    report = verify_export(MemoryFiles(changed), root_of(WORLD), processes=1)
    assert codes(report) == {(place, code)}
    assert not report.passed


@pytest.mark.slow
def test_each_missing_file_is_named() -> None:
    # Just over a tile, so that whole and partial tiles of each level are among them: all is verified again for each file.
    made = make_world(9, 262)
    files, root = made.files(), root_of(made)
    for name in files:
        if name != "checkpoint":
            rest = {one: data for one, data in files.items() if one != name}
            assert (name, "missing_file") in codes(verify_export(MemoryFiles(rest), root, processes=1))


def test_findings_are_kept_as_far_as_there_is_room_and_counted_beyond() -> None:
    report = Verification()
    report.add_findings(of_file(str(number), "unknown_file") for number in range(KEPT_FINDINGS + 3))
    assert (len(report.findings), report.count) == (KEPT_FINDINGS, KEPT_FINDINGS + 3)


def test_a_file_that_nothing_covers() -> None:
    files = WORLD.files() | {"messages/003": b"", "README": b"read me"}
    report = verify_export(MemoryFiles(files), root_of(WORLD), processes=1)
    assert codes(report) == {("messages/003", "unknown_file"), ("README", "unknown_file")}


def test_frames_beyond_the_log_bring_nothing() -> None:
    made = make_world(3, 20)
    name, files = "messages/000", made.files()
    extra = encode_frame(Frame(0, 9_999, 1, b"")) + encode_frame(made.frames[-1])
    report = verify_export(MemoryFiles(files | {name: files[name] + extra}), root_of(made), processes=1)
    assert codes(report) == {(name, "bad_entry")}


def leaves_of(world: World) -> list[bytes]:
    return [leaf_hash(entry_of(frame)) for frame in world.frames]


@pytest.mark.slow
def test_a_root_that_is_another() -> None:
    files = WORLD.files() | {"checkpoint": note(len(WORLD.frames), bytes(32), WORLD.keys)}
    assert codes(verify_export(MemoryFiles(files), root_of(WORLD), processes=1)) == {("checkpoint", "log_mismatch")}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "code"), [(100, "inconsistent_log"), (256, "inconsistent_log"), (600, "rolled_back")])
def test_a_checkpoint_that_somebody_holds(size: int, code: str) -> None:
    files = MemoryFiles(WORLD.files())
    other = replace(root_of(WORLD), checkpoints=(note(size, bytes(32), WORLD.keys),))
    assert codes(verify_export(files, other, processes=1)) == {("checkpoint", code)}
    if size < len(WORLD.frames):
        same = replace(other, checkpoints=(note(size, tree_root(leaves_of(WORLD)[:size]), WORLD.keys),))
        assert verify_export(files, same, processes=1).passed


def test_a_checkpoint_in_the_log_that_is_of_another() -> None:
    made = make_world(3, 20)
    record = record_map("checkpoint", **{"not": note(9, bytes(32), made.keys)})
    made.put(made.audit(NOTARY, [], [record]))
    report = verify_export(MemoryFiles(made.files()), root_of(made), processes=1)
    assert codes(report) == {(f"#{made.sequence}", "inconsistent_log")}


def test_order_is_not_asked_of_what_is_missing() -> None:
    files = WORLD.files()
    for missing in ("messages/000", "messages/001"):
        rest = {name: data for name, data in files.items() if name != missing}
        found = codes(verify_export(MemoryFiles(rest), root_of(WORLD), processes=1))
        assert {place for place, code in found if code == "bad_entry"} == {missing}
    short = files | {"messages/001": files["messages/001"][: len(files["messages/001"]) // 2]}
    found = codes(verify_export(MemoryFiles(short), root_of(WORLD), processes=1))
    assert {place for place, code in found if code == "bad_entry"} == {"messages/001"}


def test_processes_that_are_killed_are_no_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It cannot take what it is given, so that no process ever becomes ready.
    monkeypatch.setattr("sealbus.agents.evidence.verify.begin_worker", os.abort)
    with pytest.raises(ConfigurationError, match="killed"):
        verify_export(written(WORLD, tmp_path), root_of(WORLD), processes=2)
