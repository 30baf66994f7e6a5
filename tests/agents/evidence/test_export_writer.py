"""Writing an export: what the log says stands where, with the messages of its stream."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.kept_log import kept_files, previous_of, root_of
from support.log_world import World, make_world

from sealbus.agents.evidence.export import ExportWriter
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.errors import ConfigurationError, LogError


def messages(world: World) -> list[tuple[int, int, bytes]]:
    return [(one.sequence, one.stored, one.data) for one in world.frames if one.kind in (0, 1)]


def writer(world: World, folder: Path, files: dict[str, bytes] | None = None) -> ExportWriter:
    kept = kept_files(world) if files is None else files
    return ExportWriter(
        folder,
        len(world.frames),
        kept.get,
        stream="AUDIT",
        previous=previous_of(world),
        notaries=root_of(world).notaries,
    )


def read_back(folder: Path) -> dict[str, bytes]:
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.parametrize(("seed", "entries"), [(1, 20), (2, 20), (9, 262), (4, 256)])
def test_an_export_is_all_of_a_log(seed: int, entries: int, tmp_path: Path) -> None:
    world = make_world(seed, entries)
    made = writer(world, tmp_path)
    assert made.next == messages(world)[0][0]
    for message in messages(world):
        made.take_messages([message])
    assert made.next is None
    written = made.end(world.files()["checkpoint"])
    assert (written.entries, written.missing) == (len(world.frames), [])
    assert read_back(tmp_path) == world.files()


def test_partial_tiles_may_be_gone_once_the_full_ones_are_there(tmp_path: Path) -> None:
    world = make_world(9, 262)
    shorter = World(world.rng, frames=world.frames[:100], keys=world.keys, pinned=world.pinned)
    kept = {name: data for name, data in kept_files(world).items() if not name.startswith("checkpoint")}
    made = writer(shorter, tmp_path, kept)
    made.take_messages(messages(world))
    made.end(shorter.files()["checkpoint"])
    assert read_back(tmp_path) == shorter.files()


def test_what_the_stream_does_not_hold_any_more_does_not_verify(tmp_path: Path) -> None:
    world = make_world(1, 20)
    made = writer(world, tmp_path)
    rest = messages(world)
    gone = [rest.pop(next(at for at, (_, _, data) in enumerate(rest) if at > 4 and data))[0]]
    made.take_messages(rest)
    written = made.end(world.files()["checkpoint"])
    assert (sorted(written.missing), written.missing_count) == (sorted(gone), 1)
    report = verify_export(FolderFiles(tmp_path), root_of(world), processes=1)
    assert {f"#{sequence}" for sequence in gone} <= {finding.place for finding in report.findings}


@pytest.mark.parametrize(("later", "shorter"), [(1, 0), (0, 1)])
def test_another_time_or_payload_in_the_stream_does_not_verify(later: int, shorter: int, tmp_path: Path) -> None:
    world = make_world(1, 20)
    rest = messages(world)
    at = next(at for at, (_, _, data) in enumerate(rest) if at > 6 and data)
    sequence, time, data = rest[at]
    rest[at] = (sequence, time + later, data[: len(data) - shorter])
    made = writer(world, tmp_path)
    made.take_messages(rest)
    made.end(world.files()["checkpoint"])
    report = verify_export(FolderFiles(tmp_path), root_of(world), processes=1)
    assert f"#{sequence}" in {finding.place for finding in report.findings}


def test_what_came_after_the_checkpoint_is_left_out(tmp_path: Path) -> None:
    world = make_world(1, 20)
    made = writer(world, tmp_path)
    made.take_messages([*messages(world), (10_000, 1, b"later")])
    made.end(world.files()["checkpoint"])
    assert read_back(tmp_path) == world.files()


def test_a_policy_that_the_archive_lost_is_named_and_does_not_verify(tmp_path: Path) -> None:
    world = make_world(1, 20)
    kept = kept_files(world)
    paths = sorted(name for name in kept if name.startswith("policies/"))
    del kept[paths[0]]
    made = writer(world, tmp_path, kept)
    made.take_messages(messages(world))
    written = made.end(world.files()["checkpoint"])
    assert (written.policies, written.missing_policies, written.whole) == (len(paths) - 1, paths[:1], False)
    report = verify_export(FolderFiles(tmp_path), root_of(world), processes=1)
    assert [(one.file, one.code) for one in report.findings] == [(paths[0], "missing_file")]


def test_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="not empty"):
        writer(make_world(1, 12), tmp_path)


def test_a_tile_that_is_not_there(tmp_path: Path) -> None:
    world = make_world(1, 12)
    kept = kept_files(world)
    for number, part in enumerate(("tile/places/", "tile/entries/", "tile/0/")):
        rest = {name: data for name, data in kept.items() if not name.startswith(part)}
        with pytest.raises(LogError):
            _write(world, tmp_path / str(number), rest)


def _write(world: World, folder: Path, kept: dict[str, bytes]) -> None:
    made = writer(world, folder, kept)
    made.take_messages(messages(world))
    made.end(b"")


def test_it_takes_nothing_once_it_is_closed(tmp_path: Path) -> None:
    world = make_world(1, 12)
    made = writer(world, tmp_path)
    made.close()
    made.close()
    with pytest.raises(ConfigurationError, match="closed"):
        made.take_messages(messages(world))


def test_a_log_that_ends_in_a_gap_is_written_as_it_is(tmp_path: Path) -> None:
    world = make_world(1, 12)
    world.gap()
    world.frames.pop()
    made = writer(world, tmp_path)
    made.take_messages(messages(world))
    made.end(world.files()["checkpoint"])
    assert not verify_export(FolderFiles(tmp_path), root_of(world), processes=1).passed
