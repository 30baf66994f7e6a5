"""The log over HTTP: the names, types and cache headers of C2SP tlog-tiles, and nothing that no checkpoint covers."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
from support.grown_log import ORIGIN, SIGNER, GrownLog
from support.log_site import serving
from support.settings import SMALLEST, load

from sealbus.agents.control.log_server import open_log_server
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.tiles import TILE_WIDTH, grown_tiles, number_path

IMMUTABLE = "public, max-age=31536000, immutable"


async def test_a_client_that_knows_only_c2sp_computes_the_root_from_the_entries(tmp_path: Path) -> None:
    """Every path is made here from the words of the specification, and the tree from the definition of RFC 6962."""
    GrownLog.at(tmp_path / "log", [3, 300, 70_000 // 256 + 600])
    async with serving(tmp_path / "log", "entries = true") as (_, client):
        note = await client.get("/checkpoint")
        assert (note.status_code, note.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        assert note.headers["cache-control"] == "no-cache"
        checkpoint = open_checkpoint(note.content, origin=ORIGIN, verifiers=[SIGNER.verifier]).checkpoint
        hashes: list[bytes] = []
        for index in range(-(-checkpoint.size // 256)):
            width = min(256, checkpoint.size - 256 * index)
            path = f"{index:03}" + (f".p/{width}" if width < 256 else "")
            bundle = await client.get(f"/tile/entries/{path}")
            tile = await client.get(f"/tile/0/{path}")
            for answer in (bundle, tile):
                assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
                assert answer.headers["cache-control"] == IMMUTABLE
            rows, rest = list[bytes](), bundle.content
            while rest:
                length = int.from_bytes(rest[:2], "big")
                rows.append(sha256(b"\x00" + rest[2 : 2 + length]).digest())
                rest = rest[2 + length :]
            assert tile.content == b"".join(rows)
            hashes += rows
        assert _root(hashes) == checkpoint.root
        above = await client.get(f"/tile/1/000.p/{checkpoint.size // 256}")
        assert above.content == b"".join(
            _root(hashes[at : at + 256]) for at in range(0, checkpoint.size // 256 * 256, 256)
        )


def _root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + _root(leaves[:middle]) + _root(leaves[middle:])).digest()


async def test_every_tile_of_every_checkpoint_is_there_still(tmp_path: Path) -> None:
    """A partial tile of an older checkpoint is cut from its full tile once the folder no longer has it."""
    sizes = [1, 5, 200, 256, 257, 700]
    log = GrownLog.at(tmp_path / "log", sizes)
    assert not (log.folder / "tile" / "0" / "000.p").exists()
    async with serving(log.folder, "entries = true") as (_, client):
        for size in sizes:
            for name in grown_tiles(0, size):
                answer = await client.get(f"/{name.path}")
                assert (answer.status_code, len(answer.content)) == (200, name.bytes), name.path


async def test_the_folder_itself_has_the_names_of_the_specification(tmp_path: Path) -> None:
    """So that a mirror by any other means, and any server of files, works as well."""
    log = GrownLog.at(tmp_path / "log", [27])
    partial = log.folder / "tile" / "0" / "000.p" / "27"
    assert len(partial.read_bytes()) == 27 * 32
    assert [path.name for path in (log.folder / "tile" / "entries" / "000.p").iterdir()] == ["27"]
    assert number_path(1_234_067) == "x001/x234/067"


async def test_what_no_checkpoint_covers_is_not_served(tmp_path: Path) -> None:
    """A notary that is killed before its checkpoint may write other tiles in their place, and clients keep what they got."""
    log = GrownLog.at(tmp_path / "log", [TILE_WIDTH - 2])
    log.grow(TILE_WIDTH + 3, stored=False)
    beyond = ["tile/0/000", "tile/0/001.p/3", "tile/1/000.p/1", "tile/entries/000", f"tile/0/000.p/{TILE_WIDTH - 1}"]
    async with serving(log.folder, "entries = true") as (_, client):
        for path in beyond:
            answer = await client.get(f"/{path}")
            assert (answer.status_code, answer.headers["cache-control"]) == (404, "no-store"), path
        log.grow(TILE_WIDTH + 3)
        assert [(await client.get(f"/{path}")).status_code for path in beyond] == [200] * len(beyond)


@pytest.mark.parametrize(
    "path",
    ["tile/0/0", "tile/0/000.p/0", "tile/0/000.p/256", "tile/00/000", "tile/64/000", "tile/0/x000/000", "tile/0/000.p/05",
     "tile/0", "tile/0/%2e%2e/0/000", "tile/0/%30%30%30", "notary.lock", "trust", "tile/0/000/", "checkpoint/", ""],
)  # fmt: skip
async def test_other_names_are_not_found(tmp_path: Path, path: str) -> None:
    log = GrownLog.at(tmp_path / "log", [300])
    async with serving(log.folder, "entries = true") as (_, client):
        assert (await client.get(f"/{path}")).status_code == 404


async def test_entries_only_where_the_operator_says_so(tmp_path: Path) -> None:
    log = GrownLog.at(tmp_path / "log", [300])
    async with serving(log.folder) as (_, client):
        for path in ("tile/entries/000", "tile/entries/001.p/44", "tile/places/000"):
            answer = await client.get(f"/{path}")
            assert (answer.status_code, answer.json()["code"]) == (403, "denied")
            assert answer.headers["cache-control"] == "no-store"
        assert (await client.get("/tile/0/000")).status_code == 200
        assert (await client.post("/checkpoint")).status_code == 405


async def test_the_last_checkpoint_with_a_quorum_is_beside(tmp_path: Path) -> None:
    log = GrownLog.at(tmp_path / "log", [3])
    async with serving(log.folder) as (_, client):
        assert (await client.get("/cosigned")).status_code == 404
        (log.folder / "cosigned").write_bytes(log.notes[3])
        log.grow(9)
        answer = await client.get("/cosigned")
        assert (answer.content, answer.headers["cache-control"]) == (log.notes[3], "no-cache")


async def test_a_width_that_no_checkpoint_had_is_nobodys_fault(tmp_path: Path) -> None:
    log = GrownLog.at(tmp_path / "log", [700])
    async with serving(log.folder) as (server, client):
        for path in ("/tile/0/002.p/100", "/tile/1/000.p/1"):
            assert (await client.get(path)).status_code == 404, path
        assert server.problem == ""
        (log.folder / "tile" / "0" / "002.p" / "188").unlink()
        assert (await client.get("/tile/0/002.p/188")).status_code == 500
        # What is damaged stays so, whatever else is asked for.
        assert (await client.get("/tile/0/000")).status_code == 200
        assert server.problem


async def test_a_damaged_log_is_the_fault_of_its_server(tmp_path: Path) -> None:
    log = GrownLog.at(tmp_path / "log", [300])
    tile = log.folder / "tile" / "0" / "000"
    whole = tile.read_bytes()
    async with serving(log.folder) as (server, client):
        tile.write_bytes(whole[:-1])
        answer = await client.get("/tile/0/000")
        assert (answer.status_code, answer.headers["cache-control"]) == (500, "no-store")
        assert server.problem == "bad_tile: tile/0/000 has 8191 bytes"
        tile.write_bytes(whole)
        assert (await client.get("/tile/0/000")).content == whole
        assert server.problem == ""
        (log.folder / "checkpoint").write_bytes(b"none")
        assert (await client.get("/tile/0/000")).status_code == 500


async def test_a_log_that_has_not_begun(tmp_path: Path) -> None:
    async with serving(tmp_path / "log") as (server, client):
        assert [(await client.get(path)).status_code for path in ("/checkpoint", "/tile/0/000")] == [404, 404]
        assert server.problem == ""


async def test_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"control\.log\.folder is not set"):
        await open_log_server(load(tmp_path, SMALLEST), counters=Counters()).__aenter__()
    other = f'{SMALLEST}\n[control.log]\naddress = "0.0.0.0:0"\nfolder = "log"'
    with pytest.raises(ConfigurationError, match=r"control\.log\.certificate"):
        await open_log_server(load(tmp_path, other), counters=Counters()).__aenter__()
    log = GrownLog.at(tmp_path / "log", [3])
    own = f'{SMALLEST}\n[control.notary]\nfolder = "log"\n[control.log]\naddress = "127.0.0.1:0"'
    async with (
        open_log_server(load(tmp_path, own), counters=Counters()) as server,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False) as client,
    ):
        assert (await client.get("/checkpoint")).content == log.notes[3], "the notary's own folder"
