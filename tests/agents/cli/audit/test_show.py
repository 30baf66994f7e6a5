"""`sealbus audit show ID`: the chain as a tree, the decision, what came of it, and where the proofs are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.approved_world import Approval, approval_world
from support.kept_log import written
from support.log_world import World, make_world
from vectors.issuing import INVENTORY, SECOND
from vectors.recorded import decision, evidence

from sealbus.agents.cli.audit.group import command
from sealbus.agents.cli.output import shown_time
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.merkle import leaf_hash


def shown(world: World, folder: Path, wanted: str, *options: str) -> Result:
    written(world.files(), folder / "export")
    root = folder / "root.json"
    root.write_text(json.dumps(world.root()))
    arguments = ["show", wanted, "--root", str(root), "--export", str(folder / "export"), *options]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def ident(message: object) -> str:
    return str(message.entries()["id"].hex())  # type: ignore[attr-defined]


def test_a_chain_for_a_user(tmp_path: Path) -> None:
    world = make_world(9, 60)
    message = next(one for one in world.messages if one.context is not None and len(one.ancestors) > 1)
    result = shown(world, tmp_path, ident(message))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert f"message {ident(message)} for u-" in lines[0]
    links = [line for line in lines if " -> task." in line]
    assert len(links) == len(message.ancestors) + 1
    assert [line.index("20") for line in links] == sorted({line.index("20") for line in links})
    assert any(word in result.stdout for word in ("ALLOW inventory.update", "DENY denied inventory.update"))
    assert f"recorded by {INVENTORY} [#" in result.stdout
    assert lines[-1].startswith(f"log log.example.org/audit: {len(world.frames)} entries, root ")


def test_as_json(tmp_path: Path) -> None:
    world = make_world(9, 60)
    for number, message in enumerate((world.messages[0], next(one for one in world.messages if one.context))):
        document = json.loads(shown(world, tmp_path / str(number), ident(message), "--json").stdout)
        assert document["message"] == ident(message)
        assert (document["user"] is None) == (message.context is None)
        assert document["subject"] == "task.inventory.update"
        assert len(document["chain"]) == len(message.ancestors) + 1
        assert {"record", "sequence", "entry", "size", "outcomes", "reasons"} <= document.keys()


def test_a_record_of_another_kind(tmp_path: Path) -> None:
    world = make_world(9, 60)
    from support.memory_files import MemoryFiles

    from sealbus.agents.evidence.lookup import look_up
    from sealbus.envelopes.export.trust_root import Root
    from sealbus.envelopes.trust.merkle import leaf_hash

    lookup = look_up(MemoryFiles(world.files()), Root.parse(json.dumps(world.root()).encode()), bytes(16))
    leaf = leaf_hash(lookup.bundles[0].items[0]).hex()
    assert f"bundle [#{lookup.bundles[0].frame.sequence}, " in shown(world, tmp_path / "a", leaf).stdout
    assert json.loads(shown(world, tmp_path / "b", leaf, "--json").stdout)["kind"] == "bundle"


def test_what_does_not_verify(tmp_path: Path) -> None:
    world = make_world(2, 12)
    task, _ = world.task(user=False, chain=0)
    forged = decision(task, sto=world.time, prf=[1, 0, [], bytes([1]) * 64])
    world.put(world.audit(INVENTORY, evidence(task), [forged]))
    result = shown(world, tmp_path, ident(task))
    assert result.exit_code == 4
    assert f"#{world.sequence} DOES NOT VERIFY: bad_signature" in result.stderr
    assert "ALLOW" not in result.stdout


def test_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="this log has nothing about"):
        shown(make_world(2, 12), tmp_path, "00" * 16)


def test_who_approved_it(tmp_path: Path) -> None:
    world = approval_world()
    approval = Approval(world=world, login=60 * SECOND)
    approval.put("D A")
    plain = approval.beside(person={"sub": "chief"}, login=None, said={"verdict": "deny"}, entry={"verdict": "deny"})
    plain.put("A")
    approval.entries = [approval.one(), plain.one()]
    approval.put("R")
    wanted = leaf_hash(approval.made["R"]).hex()
    lines = [one.strip("│├└─ ") for one in shown(world, tmp_path, wanted).stdout.splitlines()]
    first, second = approval.one(), plain.one()
    login = (approval.made["said"] // SECOND - 60) * SECOND
    assert (
        f"{first['time']} approved by boss of https://idp.example, session s-2, logged in by urn:x:2 at {shown_time(login)} "
        f"[message {first['message']}, record {first['record']}]"
    ) in lines
    assert (
        f"{second['time']} denied by chief of https://idp.example, session s-1 "
        f"[message {second['message']}, record {second['record']}]"
    ) in lines
    document = json.loads(shown(world, tmp_path / "json", wanted, "--json").stdout)
    assert document["approvals"] == [first, second]
    [record] = {one["record"] for one in document["approvals"][:1]}
    assert "ALLOW inventory._approve" in shown(world, tmp_path / "said", record).stdout


@pytest.mark.parametrize("document", [b'{"context":{"approvals":[1]}}', b'{"context":{"approvals":['])
def test_what_nobody_can_read_was_approved_by_nobody(tmp_path: Path, document: bytes) -> None:
    world = approval_world()
    approval = Approval(world=world, document=document)
    approval.put("R")
    wanted = leaf_hash(approval.made["R"]).hex()
    assert json.loads(shown(world, tmp_path, wanted, "--json").stdout)["approvals"] == []
    approval.put("D")
    wanted = leaf_hash(approval.made["D"]).hex()
    assert json.loads(shown(world, tmp_path / "denied", wanted, "--json").stdout)["approvals"] == []
