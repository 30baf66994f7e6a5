"""`sealbus policy explain`: its words, an input document, and the decisions of a log in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.decided_world import FIRST, decide, decided_world
from support.kept_log import written
from support.log_world import World
from support.policies import document
from support.policy_inputs import approval_questions

from sealbus.agents.cli.policy.explain import as_lines
from sealbus.agents.cli.policy.group import command
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.bundle.files import STARTER
from sealbus.policies.explain.explanation import (
    ExplainedDecision,
    LiteralShown,
    Looked,
    NotExplained,
    ReasonShown,
    RuleShown,
    Unexplained,
)


def run(*arguments: str | Path, input: bytes | None = None) -> Result:  # noqa: A002  click's word
    return CliRunner().invoke(command, ["explain", *(str(one) for one in arguments)], input=input)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--export", "export", "--root", "root.json"),
        ("0" * 32, "--input", "x.json"),
        ("--input", "x.json"),
        ("0" * 32, "--export", "export"),
        ("0" * 32, "--root", "root.json"),
        ("0" * 32, "--policy", "missing"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_what_is_no_id_is_said() -> None:
    result = run("42")
    assert isinstance(result.exception, ConfigurationError)


def test_a_document_is_explained_by_the_policy_of_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_bytes(document("inventory.update"))
    result = run("--input", file, "--policy", STARTER)
    assert result.exit_code == 0
    first, reason, *causes = result.stdout.splitlines()
    assert first.startswith("DENY by starter ")
    assert reason == "not_owner: the item belongs to somebody else"
    cause = next(one for one in causes if "user.present == true" in one)
    assert cause.startswith("  sealbus/lib/rules.rego:")
    assert cause.endswith("  user.present == true   user.present = false   <- failed")
    assert "failed sealbus/authz/decision.rego:" in result.stdout
    more = run("--input", file, "--policy", STARTER, "--all")
    assert len(more.stdout.splitlines()) > len(result.stdout.splitlines())


def test_a_denial_that_asks_for_an_approval_is_told_as_one(tmp_path: Path) -> None:
    asked = json.loads(document("payments.pay"))
    asked["action"]["properties"] = {"amount": 420_000}
    asked["subject"]["id"] = "spiffe://example.org/agent/shop-web"
    asked["context"]["chain"] = [asked["subject"]["id"]]
    asked["resource"] = {"type": "invoice", "id": "2041", "properties": {"owner": "alice", "customer": "acme"}}
    asked["context"]["user"] |= {"present": True, "id": "alice", "type": "user", "domain": ""}
    result = run("--input", "-", "--policy", STARTER, input=json.dumps(asked).encode())
    lines = result.stdout.splitlines()
    assert lines[1:3] == [
        "asks for an approval in the queue managers: payments.pay: amount 420000, invoice 2041, for alice",
        "  next: sent as a task, it waits there for an approval: sealbus approvals ls --queue managers",
    ], result.output


def test_a_document_may_come_from_standard_input_and_go_out_as_json() -> None:
    result = run("--input", "-", "--policy", STARTER, "--json", input=document("nonsense"))
    told = json.loads(result.stdout)
    assert (result.exit_code, told["explained"], told["allow"]) == (0, True, False)
    assert "unknown_action" in [one["reason"] for one in told["reasons"]]
    looked = next(one for one in told["reasons"] if one["reason"] == "unknown_action")["failed"][0]["looked"]
    assert looked == [{"written": "things[id]", "value": None}, {"written": "id", "value": '"nonsense"'}]


def test_the_question_who_may_approve_is_asked_at_its_rule() -> None:
    result = run("--input", "-", "--policy", STARTER, "--json", input=approval_questions(1)[0])
    assert json.loads(result.stdout)["rules"][0]["rule"] == "sealbus.lib.approvals.decided"


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"a":1,"a":2}', b'{"a":1.5}', b"\xff"])
def test_what_is_no_input_document_is_refused_and_not_repeated(data: bytes) -> None:
    result = run("--input", "-", "--policy", STARTER, input=data)
    assert isinstance(result.exception, ConfigurationError)
    assert "the input document is refused" in str(result.exception)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    result = run("--input", tmp_path / "missing", "--policy", STARTER)
    assert isinstance(result.exception, ConfigurationError)
    assert "missing cannot be read" in str(result.exception)


def export_of(world: World, folder: Path) -> tuple[str | Path, ...]:
    (folder / "root.json").write_text(json.dumps(world.root()))
    return ("--export", written(world.files(), folder / "export"), "--root", folder / "root.json")


def ids(world: World) -> list[tuple[str, str]]:
    """Return leaf and message of each decision of a log, in order, as an export of it would show them."""
    found: list[tuple[str, str]] = []
    for frame in world.frames:
        if frame.kind == 1:
            for leaf, record in parse_audit_body(parse_envelope(frame.data).body).records.items():
                if isinstance(record, DecisionRecord):
                    found.append((leaf.hex(), parse_header(record.header).id.hex()))
    return found


def test_a_decision_of_an_export_is_explained_by_its_own_policy(tmp_path: Path) -> None:
    world = decided_world()
    found = export_of(world, tmp_path)
    for leaf, message in ids(world)[:2]:
        for wanted in (leaf, message):
            result = run(wanted, *found, "--json")
            told = json.loads(result.stdout)
            assert (result.exit_code, told["explained"], told["record"], told["message"]) == (0, True, leaf, message)
            assert told["revision"] == "first"
    result = run(ids(world)[1][0], *found)
    assert result.stdout.splitlines()[1:3] == ["DENY by scripted first", "no"]


def test_a_decision_that_was_not_made_by_its_policy_is_not_explained(tmp_path: Path) -> None:
    world = decided_world()
    decide(world, "no", "first", allow=True)
    result = run(ids(world)[-1][0], *export_of(world, tmp_path))
    assert result.exit_code == 1
    assert (
        "not explained (other_result): made again, the decision comes out differently: allow-to-deny" in result.stdout
    )


def test_a_policy_that_is_named_has_to_decide_as_recorded(tmp_path: Path) -> None:
    world = decided_world()
    (tmp_path / "first").write_bytes(FIRST.raw)
    found = export_of(world, tmp_path)
    results = [run(leaf, *found, "--policy", tmp_path / "first", "--json") for leaf, _ in ids(world)[:4]]
    assert [json.loads(one.stdout).get("why") for one in results] == [None, None, "other_result", "other_result"]


def test_a_decision_without_its_policy_is_not_explained(tmp_path: Path) -> None:
    world = decided_world(bundles=())
    result = run(ids(world)[0][0], *export_of(world, tmp_path), "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["explained"], told["why"]) == (1, False, "no_policy")


def test_an_id_that_nothing_has_is_said(tmp_path: Path) -> None:
    result = run("0" * 32, *export_of(decided_world(), tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no decision with this id is recorded" in result.stderr


def test_an_export_that_does_not_verify_is_said(tmp_path: Path) -> None:
    world = decided_world()
    found = export_of(world, tmp_path)
    (tmp_path / "export" / "more").write_bytes(b"")
    result = run(ids(world)[0][0], *found)
    assert result.exit_code == 4
    assert "1 records do not verify" in result.stderr


LITERAL = LiteralShown(
    file="a.rego", line=7, written="a == b", looked=(Looked(written="a", value="1"), Looked(written="b", value=None))
)
SAID = "  a.rego:7  a == b   a = 1, b = undefined   "


TOLD = ExplainedDecision(revision="r1", policy="p", allow=False, reasons=(), rules=())


def test_reasons_come_first_and_then_the_outermost_rules() -> None:
    rules = (
        RuleShown(rule="p.a", file="a.rego", line=6, depth=0, held=False, failed=LITERAL),
        RuleShown(rule="p.b", file="a.rego", line=9, depth=1, held=True),
    )
    one = replace(TOLD, reasons=(ReasonShown(reason="no", failed=(LITERAL,)),), rules=rules)
    assert list(as_lines(one, everything=False)) == [
        "DENY by p r1",
        "no",
        f"{SAID}<- failed",
        "rules",
        "  failed a.rego:6  p.a",
        f"       {SAID}<- failed",
    ]
    assert list(as_lines(one, everything=True))[-1] == "    held   a.rego:9  p.b"
    # Nothing shows the cause of a reason, so that all rules are listed.
    assert list(as_lines(replace(TOLD, reasons=(ReasonShown(reason="no"),), rules=rules), everything=False))[
        -1
    ].endswith("p.b")


def test_what_is_not_told_is_said() -> None:
    one = replace(
        TOLD, allow=True, reasons=(ReasonShown(reason="ok", held=(LITERAL,)),), cut=True, untraced=("b.rego",)
    )
    lines = list(as_lines(one, everything=False))
    assert (lines[0], lines[2]) == ("ALLOW by p r1", f"{SAID}held")
    assert lines[-2:] == ["  ... and more", "  b.rego cannot be traced: its rules are not listed"]


@pytest.mark.parametrize("why", Unexplained)
def test_each_cause_for_no_explanation_is_told_in_words(why: Unexplained) -> None:
    [line] = as_lines(NotExplained(why=why), everything=False)
    assert line.startswith(f"not explained ({why}): ")
    [line] = as_lines(NotExplained(why=why, detail="so"), everything=False)
    assert line.endswith(": so")
