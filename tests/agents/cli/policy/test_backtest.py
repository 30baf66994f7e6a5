"""`sealbus policy backtest`: its words, and a whole one over a log in memory."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.decided_world import FIRST, decide, decided_world
from support.kept_log import log_settings, written
from support.log_world import World
from support.opa import require_opa
from support.policy_inputs import closed_policy
from support.shop import Update

from sealbus import Agent, Context, Resource
from sealbus.agents.cli.policy.backtest import Limit
from sealbus.agents.cli.policy.backtest_run import FINDINGS_SHOWN, run_backtest
from sealbus.agents.cli.policy.emitted_tests import EmittedTests
from sealbus.agents.cli.policy.group import command
from sealbus.bus.audit.trail import AuditEntry, Finding
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.backtest.recorded import Change, NotReplayable
from sealbus.policies.backtest.report import Dimension
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.testing import TestBus

FINDING = Finding(sequence=3, stored=5, subject="audit.inventory", code="bad_digest", step=9, detail="")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, ["backtest", *(str(one) for one in arguments)])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--policy", STARTER, "--export", "export"),
        ("--emit-tests", "tests"),
        ("--root", "root.json"),
        ("--policy", STARTER, "--bundles", STARTER),
        ("--policy", "missing"),
        ("--bundles", "missing"),
        ("--policy", STARTER, "--engine", "sidecar"),
        ("--policy", STARTER, "--opa", "opa"),
        ("--policy", STARTER, "--fail-on", "nonsense=0"),
        ("--policy", STARTER, "--fail-on", "changed"),
        ("--policy", STARTER, "--fail-on", "changed=-1"),
        ("--policy", STARTER, "--fail-on", "changed=\u0663"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str | Path, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_limit_is_a_name_and_a_number() -> None:
    assert Limit().convert("deny-to-allow=0", None, None) == ("deny-to-allow", 0)
    assert Limit().convert(("errors", 1), None, None) == ("errors", 1)


@pytest.fixture
async def log() -> list[AuditEntry | Finding]:
    """Return a log in which the starter policy allowed alice three updates, and mallory none."""
    inventory = Agent("inventory")

    async def item(body: Update) -> Resource:
        return Resource("item", body.item_id, owner="alice", customer="acme", region="always")

    @inventory.task("update", resource=item, facts=["quantity"])
    async def update(body: Update, ctx: Context) -> None:
        del body, ctx

    async with TestBus(inventory) as bus:
        client = await bus.client("shop-web")
        for user in ("alice", "alice", "alice", "mallory"):
            await client.submit("inventory.update", Update(item_id="42"), user=bus.user(user, "shop-web"))
        await bus.idle()
        return list(await bus.audit())


async def entries(log: list[AuditEntry | Finding]) -> AsyncIterator[AuditEntry | Finding]:
    for entry in log:
        yield entry


def verdicts(log: list[AuditEntry | Finding]) -> list[bool]:
    records = [one.record for one in log if isinstance(one, AuditEntry)]
    return [one.allow for one in records if isinstance(one, DecisionRecord)]


async def test_a_candidate_that_denies_everything(log: list[AuditEntry | Finding], tmp_path: Path) -> None:
    assert sorted(verdicts(log)) == [False, True, True, True]
    candidate = closed_policy(tmp_path / "closed")
    result = await run_backtest(entries(log), policy=candidate, bundles=None, opa=None, limits=(("allow-to-deny", 2),))
    assert result.revision == build_bundle(candidate).revision
    assert (result.engine, result.own_policies, result.findings) == ("embedded", False, 0)
    assert result.report.changes == {Change.ALLOW_TO_DENY: 3, Change.REASONS: 1, Change.OBLIGATIONS: 1}
    assert result.report.groups[Change.ALLOW_TO_DENY][Dimension.USER] == {"alice": 3}
    assert result.report.groups[Change.ALLOW_TO_DENY][Dimension.CALLER] == {"spiffe://example.org/agent/shop-web": 3}
    assert result.exit_code == 1


async def test_decisions_become_tests_of_the_policy_that_made_them(
    log: list[AuditEntry | Finding], tmp_path: Path
) -> None:
    policy = shutil.copytree(STARTER, tmp_path / "policy")
    folder = policy / "past"
    result = await run_backtest(entries(log), policy=policy, bundles=None, opa=None, limits=(), emit=folder)
    emitted = result.emitted
    assert isinstance(emitted, EmittedTests)
    assert (emitted.tests, emitted.decisions, emitted.left_out, emitted.unwritable) == (2, 4, {}, 0)
    assert [file.name for file in folder.iterdir()] == list(emitted.files) == ["authz_past_test.rego"]
    text = (folder / "authz_past_test.rego").read_text()
    assert text.count("\ntest_allow_") == text.count("\ntest_deny_not_owner_") == 1
    with pytest.raises(ConfigurationError, match="is not empty"):
        await run_backtest(entries(log), policy=policy, bundles=None, opa=None, limits=(), emit=folder)
    # They run with the policy's own tests, and fail with a policy that decides otherwise.
    data = policy / "sealbus" / "registry" / "actions" / "data.json"
    for text, code in ((data.read_text(), 0), (data.read_text().replace('"owned"', '"any"'), 1)):
        data.write_text(text)
        tested = await asyncio.to_thread(CliRunner().invoke, command, ["test", str(policy)])
        assert tested.exit_code == code, tested.output
        assert ("past/authz_past_test.rego" in tested.output) is bool(code)


async def test_what_a_candidate_decides_otherwise_becomes_no_test(
    log: list[AuditEntry | Finding], tmp_path: Path
) -> None:
    candidate, folder = closed_policy(tmp_path / "closed"), tmp_path / "tests"
    result = await run_backtest(entries(log), policy=candidate, bundles=None, opa=None, limits=(), emit=folder)
    assert result.emitted is not None
    assert (result.emitted.tests, dict(result.emitted.left_out)) == (0, {"changed": 4})
    assert list(folder.iterdir()) == []


@pytest.mark.opa
def test_an_exports_tests_pass_beside_its_policy(tmp_path: Path) -> None:
    (tmp_path / "policy.tar.gz").write_bytes(FIRST.raw)
    folder = tmp_path / "tests"
    found = (*export_of(decided_world(), tmp_path), "--policy", tmp_path / "policy.tar.gz", "--emit-tests", folder)
    result = run(*found, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["tests"]["folder"]) == (0, str(folder))
    assert document["tests"]["tests"] >= 1
    command = [str(require_opa()), "test", str(tmp_path / "policy.tar.gz"), str(folder)]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tested.returncode, tested.stdout.split(":")[0], tested.stderr) == (0, "PASS", "")
    shown = run(*found[:-1], tmp_path / "again")
    assert "decisions that they stand for" in shown.output


async def test_the_log_follows_from_its_own_policy(log: list[AuditEntry | Finding], tmp_path: Path) -> None:
    (tmp_path / "starter").write_bytes(build_bundle(STARTER).raw)
    (tmp_path / "notes.txt").write_text("no bundle")
    result = await run_backtest(entries(log), policy=None, bundles=tmp_path, opa=None, limits=())
    assert (result.report.same, result.report.contradictions, result.exit_code) == (4, 0, 0)
    (tmp_path / "starter").unlink()
    result = await run_backtest(entries(log), policy=None, bundles=tmp_path, opa=None, limits=())
    assert result.report.not_replayable == {NotReplayable.NO_BUNDLE: 4}
    assert result.exit_code == 0


async def test_a_log_that_says_something_else_contradicts_its_policy(
    log: list[AuditEntry | Finding], tmp_path: Path
) -> None:
    # The closed policy, under the revision that the log names.
    copy = shutil.copytree(closed_policy(tmp_path / "closed"), tmp_path / "copy")
    revision = build_bundle(STARTER).revision
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "b").write_bytes(build_bundle(copy, revision=revision).raw)
    result = await run_backtest(entries(log), policy=None, bundles=tmp_path / "bundles", opa=None, limits=())
    assert result.report.contradictions == 4
    assert result.exit_code == 4


async def test_what_does_not_verify_is_shown_counted_and_never_asked(
    log: list[AuditEntry | Finding], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = FINDINGS_SHOWN + 5
    found: list[AuditEntry | Finding] = [*log, *(FINDING for _ in range(many))]
    result = await run_backtest(entries(found), policy=STARTER, bundles=None, opa=None, limits=())
    assert (result.findings, result.exit_code) == (many, 4)
    assert capsys.readouterr().err.count("DOES NOT VERIFY: bad_digest") == FINDINGS_SHOWN
    assert result.report.same == 4


async def test_hostile_inputs_are_counted(log: list[AuditEntry | Finding]) -> None:
    hostile = [b"[" * 65_000, b'{"a":' + b"9" * 65_000 + b"}", b'{"a":1,"a":2}', b"7", b"\xff", b'{"a":"\\ud800"}']
    entry = next(one for one in log if isinstance(one, AuditEntry) and isinstance(one.record, DecisionRecord))
    assert isinstance(entry.record, DecisionRecord)
    found: list[AuditEntry | Finding] = [
        replace(entry, record=entry.record._replace(input=document)) for document in hostile
    ]
    result = await run_backtest(entries(found), policy=STARTER, bundles=None, opa=None, limits=())
    assert result.report.not_replayable == {NotReplayable.BAD_INPUT: len(hostile)}
    # `{}` and the like are documents that a policy can be asked about: it denies, or fails.
    odd: list[AuditEntry | Finding] = [replace(entry, record=entry.record._replace(input=b'{"context":[[]]}'))]
    result = await run_backtest(entries(odd), policy=STARTER, bundles=None, opa=None, limits=())
    assert (result.report.differing, result.report.risks) == (1, 0)


def export_of(world: World, folder: Path) -> tuple[str | Path, ...]:
    (folder / "root.json").write_text(json.dumps(world.root()))
    return ("--export", written(world.files(), folder / "export"), "--root", folder / "root.json")


def test_an_export_follows_from_the_policies_in_it(tmp_path: Path) -> None:
    result = run(*export_of(decided_world(), tmp_path), "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["asked"], document["compared"], document["same"]) == (0, "own", 12, 12)


def test_a_forged_decision_in_an_export_is_found(tmp_path: Path) -> None:
    world = decided_world()
    decide(world, "no", "first", allow=True)
    result = run(*export_of(world, tmp_path), "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["changes"]["allow-to-deny"], document["findings"]) == (4, 1, 0)


def test_a_candidate_is_asked_about_an_export(tmp_path: Path) -> None:
    (tmp_path / "candidate").write_bytes(FIRST.raw)
    found = export_of(decided_world(), tmp_path)
    result = run(*found, "--policy", tmp_path / "candidate", "--fail-on", "deny-to-allow=0", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["asked"], document["changes"]["deny-to-allow"]) == (1, "candidate", 3)


def test_an_export_that_does_not_verify_is_said(tmp_path: Path) -> None:
    found = export_of(decided_world(), tmp_path)
    next((tmp_path / "export" / "policies").iterdir()).write_bytes(b"other")
    (tmp_path / "export" / "a\x1b[1m").write_bytes(b"")
    result = run(*found)
    assert result.exit_code == 4
    assert "DOES NOT VERIFY: bad_policy" in result.stderr
    assert "a\\x1b[1m DOES NOT VERIFY: unknown_file" in result.stderr


def test_without_any_folder_of_bundles_it_is_said_which_setting_is_missing(tmp_path: Path) -> None:
    log_settings(tmp_path)
    result = run("--config", tmp_path / "sealbus.toml")
    assert isinstance(result.exception, ConfigurationError)
    assert "control.notary.folder is not set" in str(result.exception)
