"""`sealbus policy new-action`: what it declares and grants, in files that stay readable, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic import BaseModel

from sealbus import Agent, Context, Resource
from sealbus.agents.cli.policy.group import command
from sealbus.agents.cli.policy.new_action import NewAction, declare
from sealbus.agents.dev.settings_file import Declared
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import EXAMPLE, STARTER
from sealbus.policies.rego_tests import run_tests
from sealbus.testing import TestBus

NAMES = Declared().names()
SHOP = "spiffe://example.org/agent/shop-web"
NOTES = "spiffe://example.org/agent/notes"
QUANTITY = ["--limit", "quantity=3", "--over", "quantity=4"]
REPLY = {"user": "none", "resource": "any", "limits": {}, "hours": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "policy"))


def document(folder: Path, name: str) -> dict[str, Json]:
    content = json.loads(text(folder, name))
    assert isinstance(content, dict)
    return content


def text(folder: Path, name: str) -> str:
    return (folder / "sealbus" / "registry" / name / "data.json").read_text()


def run(folder: Path, *arguments: str) -> Result:
    config = str(folder.parent / "sealbus.toml")
    return CliRunner().invoke(command, ["new-action", "--policy", str(folder), "--config", config, *arguments])


def granted(folder: Path, agent: str) -> dict[str, Json]:
    entry = document(folder, "agents")[agent]
    assert isinstance(entry, dict)
    actions = entry["actions"]
    assert isinstance(actions, dict)
    return actions


def test_an_action_is_declared_with_its_reply_and_granted(folder: Path) -> None:
    before = run(folder, "notes.write", "--agent", "shop-web", "--agent", "edge", "--limit", "length=200", "--hours")
    assert before.exit_code == 0, before.output
    actions = document(folder, "actions")
    assert actions["notes.write"] == {
        "user": "required", "resource": "owned", "limits": {"length": 200}, "hours": True,
    }  # fmt: skip
    assert actions["notes.write.reply"] == REPLY
    for asking in (SHOP, "spiffe://example.org/edge"):
        assert granted(folder, asking)["notes.write"] is True
    assert granted(folder, NOTES) == {"notes.write.reply": True}
    assert f"{SHOP} may do notes.write" in before.stderr
    assert "notes.write.reply: {" in before.stderr
    assert [one for one in run_tests(folder) if not one.passed] == []


def test_what_was_there_stays_as_it_stood(folder: Path) -> None:
    actions, agents = text(folder, "actions"), text(folder, "agents")
    assert run(folder, "notes.write", "--agent", "shop-web").exit_code == 0
    assert [line for line in text(folder, "actions").splitlines() if "notes." not in line] == actions.splitlines()
    kept = text(folder, "agents").splitlines()
    assert set(agents.splitlines()) <= set(kept)
    assert kept.count('      "notes.write": true,') == 1
    names = list(document(folder, "actions"))
    assert names == sorted(names)
    assert list(granted(folder, SHOP)) == sorted(granted(folder, SHOP))


class Sum(BaseModel):
    cents: int


async def item(body: Sum) -> Resource:
    return Resource("item", "7", owner="alice", customer="acme")


async def test_what_is_over_a_limit_waits_for_an_approval(folder: Path) -> None:
    agent = Agent("till")

    @agent.task("pay", resource=item, facts=["cents"])
    async def pay(body: Sum, ctx: Context) -> list[str]:
        return [one.user for one in ctx.approvals]

    silver = "urn:example:silver"
    limits = ["--limit", "cents=1000", "--approval", "managers", "--over", "cents=9000", "--acr", silver]
    said = run(folder, "till.pay", "--agent", "shop-web", *limits)
    assert said.exit_code == 0, said.output
    assert "managers of the item's customer may approve" in said.stderr
    assert document(folder, "actions")["till.pay"] == {
        "user": "required", "resource": "owned", "limits": {"cents": 1000}, "hours": False,
        "approval": {"over": {"cents": 9000}, "queue": "managers", "until": 604_800, "acr": [silver]},
    }  # fmt: skip
    assert [one for one in run_tests(folder) if not one.passed] == []
    async with TestBus(agent, policy=folder) as bus:
        client, alice = await bus.client("shop-web"), bus.user("alice", "shop-web")
        assert await (await client.submit(pay, Sum(cents=1000), user=alice)).result() == []
        waits = await client.submit(pay, Sum(cents=9000), user=alice)
        too_much = await client.submit(pay, Sum(cents=9001), user=alice)
        await bus.idle()
        await bus.assert_task(waits, "input-required", "approval_required")
        await bus.assert_task(too_much, "rejected", "denied")
        await bus.approve(waits, "bob", acr=silver)
        assert await waits.result() == ["bob"]


def test_an_event_is_granted_to_its_agent_and_has_no_reply(folder: Path) -> None:
    result = run(folder, "notes.written", "--event", "--json")
    assert json.loads(result.stdout) == {
        "sealbus/registry/actions/data.json": [f"notes.written: {json.dumps(REPLY)}"],
        "sealbus/registry/agents/data.json": [f"{NOTES} may do notes.written"],
    }
    assert granted(folder, NOTES) == {"notes.written": True}
    assert "notes.written.reply" not in document(folder, "actions")


def test_a_verb_of_ours_has_no_reply(folder: Path) -> None:
    assert run(folder, "notes._schedule", "--agent", "notes", "--user", "none").exit_code == 0
    assert document(folder, "actions")["notes._schedule"] == REPLY
    assert granted(folder, NOTES) == {"notes._schedule": True}


def test_an_action_that_nobody_may_do_is_said(folder: Path) -> None:
    result = run(folder, "notes.write", "--user", "required", "--resource", "any")
    assert result.exit_code == 0
    assert "nobody may do notes.write yet" in result.stderr


def test_callers_that_are_listed_get_the_new_ones(folder: Path) -> None:
    callers = folder / "sealbus" / "registry" / "callers" / "data.json"
    callers.write_text(json.dumps({"notes": {SHOP: True}}))
    assert run(folder, "notes.write", "--agent", "shop-web", "--agent", "planner").exit_code == 0
    assert document(folder, "callers") == {"notes": {SHOP: True, "spiffe://example.org/agent/planner": True}}


def test_a_registry_without_callers_stays_so(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "policy"))
    assert run(folder, "inventory.count", "--agent", "shop-web", "--user", "none").exit_code == 0
    assert not (folder / "sealbus" / "registry" / "callers").exists()
    assert [one for one in run_tests(folder) if not one.passed] == []


def test_names_are_those_of_the_settings_and_ids_are_taken_as_they_are(folder: Path) -> None:
    (folder.parent / "sealbus.toml").write_text(
        'trust_domain = "shop.example"\n[agents]\nnotes = "spiffe://shop.example/n"\n'
    )
    other = "spiffe://partner.example/agent/desk"
    assert run(folder, "notes.write", "--agent", other, "--agent", "planner").exit_code == 0
    assert granted(folder, other) == {"notes.write": True}
    assert granted(folder, "spiffe://shop.example/agent/planner") == {"notes.write": True}
    assert granted(folder, "spiffe://shop.example/n") == {"notes.write.reply": True}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["inventory.update"], "inventory.update is declared in"),
        (["inventory"], "'inventory' is not an action"),
        (["a.b.reply"], "'a.b.reply' is not an action"),
        (["a."], "'a.' is not an action"),
        (["a.b c"], "'a.b c' is not an action"),
        (["a.b", "--agent", "no name"], "agent name 'no name'"),
        (["a.b", "--agent", "spiffe://"], "'spiffe://' is not a SPIFFE ID"),
    ],
)
def test_what_is_refused_writes_nothing(folder: Path, arguments: list[str], why: str) -> None:
    before = text(folder, "actions"), text(folder, "agents")
    result = run(folder, *arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert why in result.exception.detail
    assert (text(folder, "actions"), text(folder, "agents")) == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["a.b", "--event", "--agent", "shop-web"], "leave --agent out"),
        (["a.b", "--user", "none", "--resource", "owned"], "an owned item needs a user"),
        (["a.b", "--limit", "quantity"], "is not FIELD=NUMBER"),
        (["a.b", "--over", "quantity=3"], "need --approval"),
        (["a.b", "--acr", "silver"], "need --approval"),
        (["a.b", "--limit", "quantity=3", "--approval", "q"], "above a --limit of its field"),
        (["a.b", "--approval", "q", "--over", "quantity=3"], "above a --limit of its field"),
        (["a.b", "--limit", "quantity=3", "--approval", "q", "--over", "quantity=3"], "above a --limit of its field"),
        (["a.b", *QUANTITY, "--approval", "q q"], "queue is not a token"),
        (["a.b", *QUANTITY, "--approval", "q", "--acr", "a b"], "acr does not hold values"),
        (["a.b", *QUANTITY, "--approval", "q", "--user", "none"], "an --approval needs a user"),
        (["a.b", *QUANTITY, "--approval", "q", "--event"], "an --approval needs a user"),
        (["a.b", "--limit", "=3"], "is not FIELD=NUMBER"),
        (["a.b", "--limit", "quantity=-1"], "is not FIELD=NUMBER"),
        (["a.b", "--limit", "quantity=9007199254740992"], "is not FIELD=NUMBER"),
        (["a.b", "--limit", "quantity=" + "9" * 5_000], "is not FIELD=NUMBER"),
    ],
)
def test_usage(folder: Path, arguments: list[str], why: str) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert why in result.stderr


@pytest.mark.parametrize("content", [None, "{", "[]", '{"a": 1, "a": 2}'])
def test_a_folder_without_a_registry(folder: Path, content: str | None) -> None:
    file = folder / "sealbus" / "registry" / "actions" / "data.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(
        ConfigurationError, match=r"actions/data\.json cannot be read: .*is .* a policy with a registry"
    ):
        declare(folder, NewAction(name="a.b", limits={}), NAMES)


def test_an_entry_that_is_no_object(folder: Path) -> None:
    (folder / "sealbus" / "registry" / "agents" / "data.json").write_text(json.dumps({NOTES: 1}))
    with pytest.raises(ConfigurationError, match=f"agents/data.json: {NOTES} is not an object"):
        declare(folder, NewAction(name="notes.write", limits={}), NAMES)
