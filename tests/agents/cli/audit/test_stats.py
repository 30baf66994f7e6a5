"""`sealbus audit stats`: counts of what verifies, by row, over a span."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner, Result
from support.kept_log import written
from support.log_world import make_world
from vectors.issuing import INVENTORY
from vectors.recorded import record_map

from sealbus.agents.cli.audit.group import command
from sealbus.envelopes.limits import SECOND

WORLD = make_world(2, 40)


def run(folder: Path, *options: str) -> Result:
    root = folder / "root.json"
    if not root.exists():
        written(WORLD.files(), folder / "export")
        root.write_text(json.dumps(WORLD.root()))
    arguments = ["stats", "--root", str(root), "--export", str(folder / "export"), *options]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def rows(result: Result) -> dict[tuple[str, str, str, str], int]:
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {(one["agent"], one["action"], one["verdict"], one["code"]): one["count"] for one in found}


def test_all_of_it(tmp_path: Path) -> None:
    found = rows(run(tmp_path, "--json"))
    assert sum(count for row, count in found.items() if row[1] == "inventory.update") == len(WORLD.decisions)
    assert {row[0] for row in found} == {INVENTORY}
    assert {row[2] for row in found} == {"allow", "deny", "done"}
    table = run(tmp_path)
    assert table.exit_code == 0
    assert "inventory.update" in table.stdout


def test_a_span(tmp_path: Path) -> None:
    middle = datetime.fromtimestamp(WORLD.frames[len(WORLD.frames) // 2].stored // SECOND, UTC).isoformat()
    whole = rows(run(tmp_path, "--json"))
    early, late = rows(run(tmp_path, "--json", "--until", middle)), rows(run(tmp_path, "--json", "--since", middle))
    assert early != whole != late
    assert {row: early.get(row, 0) + late.get(row, 0) for row in whole} == whole


def test_what_does_not_verify_is_said(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "export" / "more").write_bytes(b"")
    result = run(tmp_path)
    assert result.exit_code == 4
    assert "NOT VERIFIED: 1 finding," in result.stderr


def test_a_process_without_an_end_is_shown(tmp_path: Path) -> None:
    world = make_world(1, 2)
    for action, instance in (("start", 1), ("start", 2), ("end", 1)):
        record = record_map("process", act=action, ins=bytes([instance]) * 16, ver="1.2")
        world.put(world.audit(INVENTORY, [], [record]))
    world.record_checkpoint()
    written(world.files(), tmp_path / "export")
    (tmp_path / "root.json").write_text(json.dumps(world.root()))
    documents = [json.loads(line) for line in run(tmp_path, "--json").stdout.splitlines()]
    [shown] = [one for one in documents if "process" in one]
    assert (shown["agent"], shown["process"], shown["version"]) == (INVENTORY, "02" * 16, "1.2")
    result = run(tmp_path)
    assert result.exit_code == 0
    assert f"no end: {INVENTORY} {'02' * 16}, sealbus 1.2, started {shown['started']}" in result.stdout
    assert "01" * 16 not in result.stdout
