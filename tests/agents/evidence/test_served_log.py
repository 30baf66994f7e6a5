"""A log that is served, checked and copied over HTTP; and a copy that is served again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from support.cosigners import Cosigner, cosigned
from support.grown_log import GrownLog, root_of
from support.kept_log import StreamOfLog, kept_files, previous_of, written
from support.kept_log import root_of as world_root
from support.log_site import serving
from support.log_world import make_world
from support.ports import held_port

from sealbus.agents.evidence.export import export_log, log_files, with_policies
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.fsck import LogCheck, check_log
from sealbus.agents.evidence.served_log import copy_log, opened_log
from sealbus.agents.evidence.verify import verify_export
from sealbus.bus.ports import Transport
from sealbus.envelopes.errors import ConfigurationError, LogError, StateUnavailable
from sealbus.envelopes.export.trust_root import Root

WITNESSES = Cosigner("acme"), Cosigner("bank")


async def checked(port: int, root: Root | None = None, *, entries: bool = True) -> LogCheck:
    """Check the log at an address."""

    def check() -> LogCheck:
        with opened_log(f"http://127.0.0.1:{port}/") as get:
            return check_log(get, root or root_of(), entries=entries)

    return await asyncio.to_thread(check)


async def copied(port: int, folder: Path, root: Root | None = None, *, entries: bool = True) -> int:
    """Copy the log at an address, and return the size of the copy."""

    def copy() -> int:
        with opened_log(f"http://127.0.0.1:{port}") as get:
            return copy_log(get, folder, root or root_of(), entries=entries).size

    return await asyncio.to_thread(copy)


def of_folder(folder: Path, root: Root | None = None, *, entries: bool = True) -> LogCheck:
    files = FolderFiles(folder)
    return check_log(lambda path: files.read(path, 131_072), root or root_of(), paths=files.paths(), entries=entries)


async def test_a_log_is_checked_where_it_is_served(tmp_path: Path) -> None:
    log = GrownLog.at(tmp_path / "log", [3, 300, 700])
    async with serving(log.folder, "entries = true") as (server, _):
        report = await checked(server.port)
        assert (report.findings, report.tiles) == ([], 10)
        tile = log.folder / "tile" / "0" / "001"
        whole = tile.read_bytes()
        tile.write_bytes(bytes(32) + whole[32:])
        assert [finding.file for finding in (await checked(server.port)).findings] == ["tile/0/001"]
        tile.write_bytes(whole)
        (log.folder / "tile" / "entries" / "000").unlink()
        with pytest.raises(StateUnavailable, match=r"tile/entries/000 answers with status 500"):
            await checked(server.port)


async def test_entries_that_are_not_shown(tmp_path: Path) -> None:
    log = GrownLog.at(tmp_path / "log", [300])
    async with serving(log.folder) as (server, _):
        with pytest.raises(ConfigurationError, match=r"tile/entries/000 is not shown to you .* --hashes-only"):
            await checked(server.port)
        assert (await checked(server.port, entries=False)).passed
        assert await copied(server.port, tmp_path / "copy", entries=False) == 300
    assert of_folder(tmp_path / "copy", entries=False).passed
    assert not (tmp_path / "copy" / "tile" / "entries").exists()


async def test_a_copy_follows_its_log_and_is_served_again(tmp_path: Path) -> None:
    log, root = GrownLog.at(tmp_path / "log", [3]), root_of(*WITNESSES)
    async with serving(log.folder, "entries = true") as (server, client):
        for size in (3, 200, 256, 300, 300, 700):
            note = log.grow(size)
            (log.folder / "cosigned").write_bytes(cosigned(note, *WITNESSES))
            assert await copied(server.port, tmp_path / "copy", root) == size
            report = of_folder(tmp_path / "copy", root)
            assert (report.findings, report.cosigned) == ([], size)
        asked = len(list((log.folder / "tile" / "0").iterdir()))
        assert asked == len(list((tmp_path / "copy" / "tile" / "0").iterdir()))
        async with serving(tmp_path / "copy", "entries = true") as (again, other):
            assert (await checked(again.port, root)).passed
            for path in ("/checkpoint", "/cosigned", "/tile/1/000.p/2", "/tile/places/002.p/188", "/tile/entries/001"):
                assert (await client.get(path)).content == (await other.get(path)).content, path


async def test_a_copy_keeps_what_it_has(tmp_path: Path) -> None:
    """Of a log with another history, an older one, or one whose tiles do not lead to its checkpoint nothing is kept."""
    copy = tmp_path / "copy"
    async with serving(GrownLog.at(tmp_path / "log", [200, 300]).folder, "entries = true") as (server, _):
        await copied(server.port, copy)
    before = (copy / "checkpoint").read_bytes()
    fork = GrownLog.at(tmp_path / "fork", [300, 700], branch="fork")
    for log, code in (
        (fork, "inconsistent_log"),
        (GrownLog.at(tmp_path / "same", [300], branch="fork"), "inconsistent_log"),
        (GrownLog.at(tmp_path / "old", [200]), "inconsistent_log"),
    ):
        async with serving(log.folder, "entries = true") as (server, _):
            with pytest.raises(LogError) as caught:
                await copied(server.port, copy)
            assert caught.value.code == code
    tile = fork.folder / "tile" / "0" / "001"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    async with serving(fork.folder, "entries = true") as (server, _):
        for entries in (True, False):
            with pytest.raises(LogError, match="log_mismatch"):
                await copied(server.port, tmp_path / f"new-{entries}", entries=entries)
            assert not (tmp_path / f"new-{entries}" / "checkpoint").exists()
    assert (copy / "checkpoint").read_bytes() == before
    assert of_folder(copy).passed


async def test_a_checkpoint_that_nobody_trusts_is_not_copied(tmp_path: Path) -> None:
    log, root = GrownLog.at(tmp_path / "log", [9]), root_of(*WITNESSES)
    async with serving(log.folder, "entries = true") as (server, _):
        (log.folder / "checkpoint").write_bytes(cosigned(log.notes[9], Cosigner("stranger")))
        with pytest.raises(LogError, match="untrusted_note"):
            await copied(server.port, tmp_path / "copy", root)
        assert await copied(server.port, tmp_path / "copy") == 9, "without a policy, cosignatures are left out"
        assert (tmp_path / "copy" / "checkpoint").read_bytes() == log.notes[9]


async def test_what_witnesses_cosigned_is_of_the_copied_log(tmp_path: Path) -> None:
    log, root = GrownLog.at(tmp_path / "log", [9, 300]), root_of(*WITNESSES)
    fork = GrownLog.at(tmp_path / "fork", [9, 300, 301], branch="fork")
    async with serving(log.folder, "entries = true") as (server, _):
        for note, code in (
            (cosigned(fork.notes[9], *WITNESSES), "inconsistent_log"),
            (cosigned(fork.notes[301], *WITNESSES), "inconsistent_log"),
            (cosigned(log.notes[9], *WITNESSES[:1]), "no_quorum"),
        ):
            (log.folder / "cosigned").write_bytes(note)
            with pytest.raises(LogError) as caught:
                await copied(server.port, tmp_path / "copy", root)
            assert caught.value.code == code
            assert not (tmp_path / "copy" / "cosigned").exists()
        (log.folder / "cosigned").write_bytes(cosigned(log.notes[300], *WITNESSES))
        assert await copied(server.port, tmp_path / "copy", root) == 300
    assert of_folder(tmp_path / "copy", root).cosigned == 300


async def test_what_the_copy_has_is_not_replaced(tmp_path: Path) -> None:
    """A server may show other leaves in place of those that the tree of the copy is not asked about again."""
    log, copy = GrownLog.at(tmp_path / "log", [300]), tmp_path / "copy"
    fork = GrownLog.at(tmp_path / "fork", [300, 700], branch="fork")
    had = 300 % 256
    async with serving(log.folder, "entries = true") as (server, _):
        await copied(server.port, copy)
        for size, name in ((300, "001.p/44"), (700, "001")):
            log.grow(size)
            for level, row in (("0", 32), ("entries", 34), ("places", 17)):
                tile, other = log.folder / "tile" / level / name, fork.folder / "tile" / level / "001"
                tile.write_bytes(other.read_bytes()[: had * row] + tile.read_bytes()[had * row :])
            with pytest.raises(LogError, match=r"inconsistent_log: tile 1 does not begin with what the copy has"):
                await copied(server.port, copy)
            assert of_folder(copy).passed
            assert (of_folder(copy).tiles, (copy / "tile" / "0" / "001").exists()) == (7, False)


async def test_cosignatures_that_a_copy_has_stay(tmp_path: Path) -> None:
    log, root, copy = GrownLog.at(tmp_path / "log", [300, 700]), root_of(*WITNESSES), tmp_path / "copy"
    shown, both = log.folder / "cosigned", cosigned(log.notes[700], *WITNESSES)
    (log.folder / "checkpoint").write_bytes(both)
    shown.write_bytes(both)
    async with serving(log.folder, "entries = true") as (server, _):
        assert await copied(server.port, copy, root) == 700
        shown.write_bytes(cosigned(log.notes[300], *WITNESSES))
        with pytest.raises(LogError, match="inconsistent_log: the copy has what witnesses cosigned at 700"):
            await copied(server.port, copy, root)
        shown.unlink()
        with pytest.raises(LogError, match="inconsistent_log: the copy has what witnesses cosigned at 700"):
            await copied(server.port, copy, root)
        shown.write_bytes(both)
        (log.folder / "checkpoint").write_bytes(cosigned(log.notes[700], WITNESSES[0]))
        assert await copied(server.port, copy, root) == 700
        assert [(copy / name).read_bytes() for name in ("checkpoint", "cosigned")] == [both, both]
        fewer = cosigned(log.grow(900), WITNESSES[0])
        (log.folder / "checkpoint").write_bytes(fewer)
        assert await copied(server.port, copy, root) == 900
    assert [(copy / name).read_bytes() for name in ("checkpoint", "cosigned")] == [fewer, both]


async def test_an_address_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(StateUnavailable, match=r"/checkpoint does not answer: "):
        await checked(held_port())
    async with serving(tmp_path / "empty") as (server, _):
        with pytest.raises(ConfigurationError, match="no checkpoint yet"):
            await copied(server.port, tmp_path / "copy")
        assert [str(one.code) for one in (await checked(server.port)).findings] == ["missing_file"]


async def test_an_export_of_a_copy_verifies(tmp_path: Path) -> None:
    """As `audit verify --live --log COPY` makes it: the entries are of the copy, the messages of the stream."""
    world = make_world(9, 262)
    own, root = kept_files(world), world_root(world)
    log = written(own, tmp_path / "log")
    async with serving(log, "entries = true") as (server, _):
        assert await copied(server.port, tmp_path / "copy", root) == len(world.frames)
    policies = {path: data for path, data in own.items() if path.startswith("policies/")}
    await export_log(
        tmp_path / "export",
        get=with_policies(log_files(tmp_path / "copy"), written(policies, tmp_path / "archive") / "policies"),
        transport=cast("Transport", StreamOfLog(world, frozenset())),
        root=root,
        previous=previous_of(world),
    )
    assert verify_export(FolderFiles(tmp_path / "export"), root, processes=1).passed
