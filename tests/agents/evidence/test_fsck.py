"""The check of a log's files: a right log has no finding, and a thousand alterations of single files have one each."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from support.cosigners import ML_DSA_44, Cosigner, cosigned
from support.grown_log import GrownLog, root_of

from sealbus.agents.evidence.fsck import LogCheck, check_log
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.tiles import TILE_WIDTH

ALTERATIONS = 1_000
SEED = 20_261_203
SIZES = [3, 200, 600, 650, 700]
WITNESSES = Cosigner("acme"), Cosigner("bank", ML_DSA_44)

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    """Return all files of a log by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(files: Files, root: Root | None = None, *, entries: bool = True) -> LogCheck:
    return check_log(files.get, root or root_of(), paths=files, entries=entries)


def findings(report: LogCheck) -> list[tuple[str, str]]:
    return [(finding.file, str(finding.code)) for finding in report.findings]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A log with a quorum at the checkpoint before its last."""
    log = GrownLog.at(tmp_path / "log", SIZES)
    kept = files_of(log.folder)
    kept["cosigned"] = cosigned(log.notes[650], *WITNESSES)
    kept["checkpoint"] = cosigned(log.notes[700], WITNESSES[1])
    return kept


def test_a_right_log(files: Files) -> None:
    report = check(files, root_of(*WITNESSES))
    assert (report.findings, report.passed) == ([], True)
    assert report.checkpoint is not None
    assert (report.checkpoint.size, report.cosigned, report.cosigners) == (700, 650, ("acme", "bank"))
    assert report.tiles == 3 * 3 + 1, "hashes, entries and places of level 0, and the tile above"
    plain = check(files)
    assert (plain.findings, plain.cosigners) == ([], ()), "a root file without a policy asks no witness"
    assert check(files | {"TILE/0/000": b"", "notary.lock": b""}).passed, "what is not under tile/ is not of the log"
    hashes = {path: data for path, data in files.items() if "entries" not in path and "places" not in path}
    assert check(hashes, entries=False).passed
    assert not check(hashes).passed


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 513])
def test_right_logs_of_other_sizes(tmp_path: Path, size: int) -> None:
    assert check(files_of(GrownLog.at(tmp_path / "log", [size]).folder)).findings == []


def altered(files: Files, choice: random.Random) -> tuple[str, str, Files]:
    """Return a kind of alteration, the path that was altered, and the files after it.

    Nothing covers places but their form, and nothing needs the tiles of older checkpoints: the first are not altered inside,
    and the second are not removed.
    """
    named = sorted(path for path in files if path.startswith("tile/") or path in ("checkpoint", "cosigned"))
    places = [path for path in named if "/places/" in path]
    older = [path for path in named if ".p/" in path and not path.endswith((".p/188", ".p/2"))]
    kind = choice.choice(["flip", "flip", "cut", "more", "remove", "swap", "beyond", "entry"])
    others = files.copy()
    match kind:
        case "flip":
            path = choice.choice([path for path in named if path not in places])
            data = bytearray(files[path])
            data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
            others[path] = bytes(data)
        case "cut":
            path = choice.choice(named)
            ends = [at for at in range(len(files[path])) if files[path][at - 1 : at] != b"\n"]
            others[path] = files[path][: choice.choice(ends)]
        case "more":
            path = choice.choice(named)
            others[path] = files[path] + choice.randbytes(choice.randrange(1, 40))
        case "remove":
            path = choice.choice([path for path in named if path not in older])
            del others[path]
        case "swap":
            path = choice.choice([path for path in named if path not in places])
            other = choice.choice([one for one in named if files[one] != files[path]])
            others[path], others[other] = files[other], files[path]
        case "beyond":
            path = choice.choice(
                ["tile/0/003", "tile/0/002", "tile/entries/002.p/189", "tile/1/000.p/3", "tile/2/000.p/1"]
            )
            others[path] = choice.randbytes(8_192)
        case _:
            path = choice.choice(["tile/entries/000", "tile/entries/001", "tile/entries/002.p/188"])
            at = choice.randrange(len(files[path]) // 34) * 34 + 2
            others[path] = files[path][:at] + choice.randbytes(32) + files[path][at + 32 :]
    return kind, path, others


def test_a_thousand_alterations_are_found(files: Files) -> None:
    choice, root, kinds, named = random.Random(SEED), root_of(*WITNESSES), Counter[str](), 0  # noqa: S311  repeatable
    for number in range(ALTERATIONS):
        kind, path, others = altered(files, choice)
        report = check(others, root)
        assert not report.passed, (number, kind, path)
        kinds[kind] += 1
        named += path in {finding.file for finding in report.findings}
    assert len(kinds) == 7
    assert min(kinds.values()) > 50
    assert named > ALTERATIONS * 0.9, "the finding names the file, unless the note or both of a pair are in doubt"


def changed(data: bytes, at: int = 5) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_the_finding_names_the_file(files: Files) -> None:
    found = partial(check, root=root_of(*WITNESSES))
    for path in ("tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2", "tile/entries/001", "tile/entries/002.p/188"):
        assert findings(found(files | {path: changed(files[path])})) == [(path, "bad_tile")]
        assert findings(found({name: data for name, data in files.items() if name != path})) == [(path, "missing_file")]
        assert findings(found(files | {path: changed(files[path], len(files[path]) - 1)})) == [(path, "bad_tile")]
    older = "tile/0/002.p/88"
    assert findings(found(files | {older: changed(files[older])})) == [(older, "bad_tile")]
    assert findings(found(files | {"tile/0/junk": b""})) == [("tile/0/junk", "unknown_file")]
    assert findings(found(files | {"tile/0/003": bytes(8_192)})) == [("tile/0/003", "unknown_file")]
    place = "tile/places/001"
    assert findings(found(files | {place: b"\xff" + files[place][1:]})) == [(place, "bad_tile")]
    cut = found(files | {"tile/0/001": files["tile/0/001"][:-32]})
    assert [str(finding.detail) for finding in cut.findings] == ["8160 bytes, where a tile of 256 has 8192"]


def test_hashes_and_entries_that_were_changed_together(files: Files) -> None:
    """The tile above still says what they were. Nobody can say what the entry was."""
    entries, hashes = "tile/entries/001", "tile/0/001"
    both = files | {entries: files["tile/entries/000"], hashes: files["tile/0/000"]}
    assert findings(check(both)) == [(hashes, "bad_tile")]
    last = files | {"tile/0/002.p/188": files["tile/0/000"][: 188 * 32]}
    last["tile/entries/002.p/188"] = files["tile/entries/000"][: 188 * 34]
    assert ("checkpoint", "log_mismatch") in findings(check(last))


def test_several_at_once_are_each_named(files: Files) -> None:
    paths = ["tile/0/001", "tile/1/000.p/2", "tile/entries/000"]
    others = files | {path: changed(files[path]) for path in paths[::2]}
    assert sorted(findings(check(others))) == [("tile/0/001", "bad_tile"), ("tile/entries/000", "bad_tile")]
    paths[:2] = ["tile/1/000.p/2", "tile/entries/002.p/188"]
    others = files | {path: changed(files[path]) for path in paths}
    assert sorted(findings(check(others))) == sorted((path, "bad_tile") for path in paths)
    paths = ["tile/0/001", "tile/1/000.p/2"]
    # Without the tile above and one below, nothing leads to the root.
    assert ("checkpoint", "log_mismatch") in findings(check(files | {path: changed(files[path]) for path in paths}))


def test_an_older_checkpoint_is_told_by_what_is_beyond_it_and_by_who_holds_a_later_one(
    files: Files, tmp_path: Path
) -> None:
    notes = GrownLog.at(tmp_path / "again", SIZES).notes
    report = check(files | {"checkpoint": notes[650]})
    assert ("tile/0/002.p/188", "unknown_file") in findings(report)
    assert report.findings[0].detail == "beyond the checkpoint at 650"
    rolled = files_of(GrownLog.at(tmp_path / "short", [3, 200]).folder)
    assert check(rolled).passed
    assert findings(check(rolled, root_of(held=[notes[600]]))) == [("checkpoint", "rolled_back")]
    assert check(files, root_of(held=[notes[600], notes[700], notes[3]])).passed


def test_another_history_under_the_same_key(files: Files, tmp_path: Path) -> None:
    """Every file of it is right. A checkpoint that somebody holds, or that witnesses cosigned, is not of it."""
    fork = GrownLog.at(tmp_path / "fork", SIZES, branch="fork")
    other = files_of(fork.folder)
    assert check(other).passed
    held = GrownLog.at(tmp_path / "again", [600]).notes[600]
    assert findings(check(other, root_of(held=[held]))) == [("checkpoint", "inconsistent_log")]
    for own in ([held, fork.notes[3]], [fork.notes[3], held]):
        assert findings(check(other, root_of(held=own))) == [("checkpoint", "inconsistent_log")]
    mixed = other | {"cosigned": files["cosigned"]}
    assert findings(check(mixed, root_of(*WITNESSES))) == [("checkpoint", "inconsistent_log")]


def test_cosignatures(files: Files, tmp_path: Path) -> None:
    notes, root = GrownLog.at(tmp_path / "again", SIZES).notes, root_of(*WITNESSES)
    few = files | {"cosigned": cosigned(notes[650], WITNESSES[0])}
    assert findings(check(few, root)) == [("cosigned", "no_quorum")]
    strange = files | {"checkpoint": cosigned(notes[700], Cosigner("stranger"))}
    assert findings(check(strange, root)) == [("checkpoint", "untrusted_note")]
    wrong = files | {"cosigned": cosigned(notes[650], *WITNESSES).replace(b"acme.example", b"acne.example")}
    assert findings(check(wrong, root)) == [("cosigned", "untrusted_note")]
    later = files | {"cosigned": files["checkpoint"], "checkpoint": files["cosigned"]}
    assert ("cosigned", "no_quorum") in findings(check(later, root))
    full = cosigned(notes[700], *WITNESSES)
    assert check(files | {"checkpoint": full, "cosigned": full}, root).cosigned == 700


def test_a_log_that_grows_while_it_is_checked(tmp_path: Path) -> None:
    """Its new tiles are listed already, and its new checkpoint comes after the old one was read."""
    log = GrownLog.at(tmp_path / "log", [200])
    old = (log.folder / "checkpoint").read_bytes()
    log.grow(300)
    files, reads = files_of(log.folder), list[str]()

    def get(path: str) -> bytes | None:
        reads.append(path)
        return old if path == "checkpoint" and reads.count(path) == 1 else files.get(path)

    assert check_log(get, root_of(), paths=files).findings == []
    assert check_log(lambda path: old if path == "checkpoint" else files.get(path), root_of(), paths=files).findings
    reads.clear()
    files["checkpoint"] = b"none"
    codes = [str(finding.code) for finding in check_log(get, root_of(), paths=files).findings]
    assert codes == ["bad_note", *["unknown_file"] * (len(codes) - 1)]
    assert len(codes) > 1


def test_a_tree_of_three_levels(tmp_path: Path) -> None:
    """An altered tile is named at each level, and what is below it is checked by what gives the same hash."""
    files = files_of(GrownLog.at(tmp_path / "log", [TILE_WIDTH * TILE_WIDTH + 300]).folder)
    assert check(files).findings == []
    for path in ("tile/2/000.p/1", "tile/1/000", "tile/1/001.p/1", "tile/0/255", "tile/0/256", "tile/entries/256"):
        assert findings(check(files | {path: changed(files[path])})) == [(path, "bad_tile")], path
    below = files | {path: changed(files[path]) for path in ("tile/1/000", "tile/entries/007")}
    assert sorted(findings(check(below))) == [("tile/1/000", "bad_tile"), ("tile/entries/007", "bad_tile")]
    unknown = check(files | {path: changed(files[path]) for path in ("tile/1/000", "tile/0/007")})
    assert findings(unknown) == [("tile/1/000", "bad_tile")]
    assert unknown.tiles < 20, "what is below it is not known to be right"


def test_no_checkpoint_and_one_by_another_key(files: Files) -> None:
    assert findings(check({})) == [("checkpoint", "missing_file")]
    note = files["checkpoint"].replace(b"log.example.org", b"log.example.com")
    assert findings(check(files | {"checkpoint": note}, root_of(*WITNESSES)))[0][0] == "checkpoint"
