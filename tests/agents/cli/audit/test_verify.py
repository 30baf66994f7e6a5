"""`sealbus audit verify` on exports in a folder: what it prints and with which code it ends."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from independent import verify_export as independent
from support.approved_world import Approval, approval_world
from support.decided_world import decide, decided_world
from support.kept_log import written
from support.log_world import files_of, make_world
from vectors.issuing import INVENTORY
from vectors.recorded import record_map

from sealbus.agents.cli.audit.group import command
from sealbus.agents.cli.audit.verify import findings_text
from sealbus.envelopes.errors import ConfigurationError

WORLD = make_world(2, 20)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    (tmp_path / "root.json").write_text(json.dumps(WORLD.root()))
    return written(WORLD.files(), tmp_path / "export")


def run(export: Path, *options: str) -> Result:
    arguments = ["verify", str(export), "--root", str(export.parent / "root.json"), *options]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_a_good_export(export: Path) -> None:
    result = run(export)
    assert (result.exit_code, result.stdout) == (0, "verified\n")
    assert f"{len(WORLD.frames)} entries" in result.stderr
    result = run(export, "--json", "--processes", "1")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert document["size"] == len(WORLD.frames)
    assert document["findings"] == 0


def test_gaps_are_told(export: Path) -> None:
    gaps = [frame for frame in WORLD.frames if frame.kind == 2]
    assert gaps
    assert f"{len(gaps)} gaps in the stream" in run(export).stderr


def test_records_of_a_later_version_are_counted_and_no_finding(tmp_path: Path) -> None:
    world = make_world(3, 20)
    world.put(world.audit(INVENTORY, [], [record_map("letter", of=b"x"), record_map("letter", of=b"y")]))
    (tmp_path / "root.json").write_text(json.dumps(world.root()))
    export = written(world.files(), tmp_path / "export")
    result = run(export)
    assert (result.exit_code, result.stdout) == (0, "verified\n")
    assert "2 records are of kinds that a later version writes; who sealed them is verified" in result.stderr
    assert json.loads(run(export, "--json").stdout)["records"]["later"] == 2
    assert independent.verify(world.files(), independent.read_root(json.dumps(world.root()).encode())).findings == []
    [name] = (export / "messages").iterdir()
    name.write_bytes(name.read_bytes().replace(b"letter", b"lettes", 1))
    assert run(export).exit_code == 4


def test_each_finding_has_its_place(export: Path) -> None:
    (export / "strange\x1b[31m\n\udcff").write_bytes(b"")
    message = export / "messages" / "000"
    message.write_bytes(message.read_bytes()[:-1])
    result = run(export)
    assert result.exit_code == 4
    assert "messages/000 bad_entry cut inside a frame\n" in result.stdout
    assert "strange\\x1b[31m\\n\\udcff unknown_file nothing covers it\n" in result.stdout
    assert result.stdout.endswith("findings\n")
    lines = [json.loads(line) for line in run(export, "--json").stdout.splitlines()]
    assert {line["kind"] for line in lines} == {"finding", "report"}
    assert lines[-1]["findings"] == len(lines) - 1
    assert {line.get("file") for line in lines} > {"messages/000", "strange\\x1b[31m\\n\\udcff"}


def test_a_message_is_named_by_its_sequence(export: Path) -> None:
    message = export / "messages" / "000"
    data = bytearray(message.read_bytes())
    data[-1] ^= 1
    message.write_bytes(bytes(data))
    last = WORLD.frames[-1].sequence
    assert f"#{last} log_mismatch" in run(export).stdout
    first, *_ = [json.loads(line) for line in run(export, "--json").stdout.splitlines()]
    assert first["sequence"] == last


def test_a_folder_or_the_running_deployment(export: Path) -> None:
    root = str(export.parent / "root.json")
    for arguments in (["--root", root], [str(export), "--live", "--root", root], [str(export)]):
        assert CliRunner().invoke(command, ["verify", *arguments]).exit_code == 2


def test_no_export_is_given_twice(export: Path) -> None:
    other = export.parent / "other.json"
    other.write_text(json.dumps(WORLD.root() | {"origin": "log.example.org/other"}))
    same = export.parent / "x" / ".." / "export"
    (export.parent / "x").mkdir()
    for folder in (export, same):
        result = run(export, "--beside", str(folder), str(other))
        assert (result.exit_code, result.stdout) == (2, "")
        assert "for other exports" in result.stderr


def test_a_root_file_that_is_none(export: Path) -> None:
    (export.parent / "root.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="root file"):
        run(export)
    (export.parent / "root.json").unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run(export)


def test_words() -> None:
    assert [findings_text(number) for number in (1, 2)] == ["1 finding", "2 findings"]


def test_more_findings_than_are_kept(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealbus.agents.evidence.verify.KEPT_FINDINGS", 2)
    for number in range(5):
        (export / f"more-{number}").write_bytes(b"")
    result = run(export)
    assert result.exit_code == 4
    assert "... and 3 more\nNOT VERIFIED: 5 findings\n" in result.stdout


def test_decisions_are_made_again_where_that_is_asked_for(tmp_path: Path) -> None:
    world = decided_world()
    (tmp_path / "root.json").write_text(json.dumps(world.root()))
    result = run(written(world.files(), tmp_path / "good"), "--decisions")
    assert (result.exit_code, result.stdout) == (0, "verified\n")
    assert "12 of " in result.stderr
    document = json.loads(run(tmp_path / "good", "--decisions", "--json").stdout)
    assert (document["decisions"]["compared"], document["decisions"]["same"]) == (12, 12)
    decide(world, "no", "first", allow=True)
    world.record_policy(b"no bundle", "third")
    export = written(world.files(), tmp_path / "forged")
    assert run(export).exit_code == 0
    result = run(export, "--decisions")
    assert result.exit_code == 4
    assert "bad_decision does not follow from its input and policy: allow-to-deny\n" in result.stdout
    assert "not a gzip" in result.stderr or ".tar.gz: " in result.stderr


@pytest.mark.parametrize("by", ["command", "independent"])
def test_approvals_from_before_a_move_are_in_the_log_beside(
    tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    former, present = approval_world(), approval_world()
    Approval(world=former).put_over(present, "D", "A R")
    given: list[str] = []
    for name, world in (("present", present), ("former", former)):
        root = {**world.root(), "origin": f"log.example.org/{name}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(root))
        files = files_of(world.frames, world.keys, origin=f"log.example.org/{name}")
        given += [str(written(files, tmp_path / name)), str(tmp_path / f"{name}.json")]

    def verified(folder: str, root: str, *beside: str) -> tuple[int, str]:
        options = [folder, "--root", root, *(("--beside", *beside) if beside else ())]
        if by == "independent":
            return independent.main(options), capsys.readouterr().out
        result = CliRunner().invoke(command, ["verify", *options], catch_exceptions=False)
        return result.exit_code, result.stdout

    assert verified(*given)[0] == 0
    code, said = verified(*given[:2])
    assert (code, "bad_approval" in said) == (4, True)
    # A log is no witness of itself.
    assert verified(*given[:2], *given[:2])[0] == 2
    # Faults of the log beside it are told, too.
    (tmp_path / "former" / "strange").write_bytes(b"")
    code, said = verified(*given)
    assert (code, "unknown_file" in said, "bad_approval" in said) == (4, True, False)


@pytest.mark.parametrize("by", ["command", "independent"])
def test_logs_that_rest_on_each_other_are_one_set(tmp_path: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    worlds = {name: approval_world(seed) for seed, name in enumerate(("east", "west", "third"))}
    for name, other in (("east", "west"), ("west", "east"), ("third", "east")):
        Approval(world=worlds[name]).put_over(worlds[other], "D A", "R")
    logs: dict[str, list[str]] = {}
    for name, world in worlds.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**world.root(), "origin": f"log.example.org/{name}"}))
        files = files_of(world.frames, world.keys, origin=f"log.example.org/{name}")
        logs[name] = [str(written(files, tmp_path / name)), str(tmp_path / f"{name}.json")]

    def verified(first: str, *others: str, more: str = "") -> tuple[int, str]:
        beside = [option for other in others for option in ("--beside", *logs[other])]
        options = [logs[first][0], "--root", logs[first][1], *beside, *([more] if more else ())]
        if by == "independent":
            return independent.main(options), capsys.readouterr().out
        result = CliRunner().invoke(command, ["verify", *options], catch_exceptions=False)
        return result.exit_code, result.stdout

    for order in permutations(worlds):
        assert verified(*order)[0] == 0
    # East rests on both, west on east alone.
    for first, other, code in (("west", "east", 4), ("east", "west", 4), ("west", "third", 4), ("third", "west", 4)):
        assert verified(first, other)[0] == code
    assert verified("west", "east")[1].count("bad_approval") == 1
    assert verified("west", "east", "east")[0] == 2
    if by == "command":
        said = [json.loads(line) for line in verified("west", "east", more="--json")[1].splitlines()]
        assert [(one["kind"], Path(one["export"]).name) for one in said] == [
            ("finding", "east"), ("report", "east"), ("report", "west"),
        ]  # fmt: skip
        # Of one export there is nothing to tell apart.
        [said] = [json.loads(line) for line in verified("third", more="--json")[1].splitlines()]
        assert "export" not in said
