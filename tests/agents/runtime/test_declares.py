"""What an agent declares of itself: in its messages, in what policies are asked, and in the records of its processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.lab import until

from sealbus import Agent, Context, Declaration, Denied
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.process.process_record import recorded_process
from sealbus.envelopes.message.declaration import NOTHING_DECLARED
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.operation import ProcessRecord
from sealbus.policies.bundle.files import EXAMPLE
from sealbus.testing import TestBus

DECLARED = Declaration.of(model="m-1", prompt="Be brief.", tools='[{"name":"store"}]')
SAID = {"model": "m-1", "prompt": DECLARED.prompt.hex(), "tools": DECLARED.tools.hex()}
PAGE = Path(__file__).parents[3] / "docs" / "policy.md"


class Item(BaseModel):
    item_id: str


def agents(declares: Declaration) -> tuple[Agent, Agent]:
    planner, inventory = Agent("planner", declares=declares), Agent("inventory")

    @planner.task("plan")
    async def plan(body: Item, ctx: Context) -> str:
        handle = await ctx.submit("inventory.read", body)
        return str(await handle.result())

    @inventory.task("read")
    async def read(body: Item, ctx: Context) -> str:
        return body.item_id

    return planner, inventory


async def planned(bus: TestBus) -> object:
    client = await bus.client("shop-web")
    handle = await client.submit(
        "planner.plan", Item(item_id="42"), grants=["inventory.*"], user=bus.user("alice", "shop-web")
    )
    return await handle.result()


async def test_a_policy_is_asked_with_what_the_sender_declares() -> None:
    engine = ScriptedEngine()
    async with TestBus(*agents(DECLARED), engine=engine) as bus:
        assert await planned(bus) == "42"
    told = {(question["action"]["name"], question["subject"]["id"]): question["subject"] for question in engine.asked}
    own = bus.names.id_of("planner").value
    declared = {"trust_domain": "example.org", **SAID}
    assert told["inventory.read", own]["properties"] == declared
    assert told["planner.plan.reply", own]["properties"] == declared
    others = [subject["properties"] for subject in told.values() if subject["id"] != own]
    assert others
    assert all(properties == {"trust_domain": "example.org"} for properties in others)


async def test_all_its_messages_carry_it_and_its_records_do_not() -> None:
    async with TestBus(*agents(DECLARED), engine=ScriptedEngine()) as bus:
        await planned(bus)
        own = bus.names.id_of("planner")
        headers = [
            parse_header(parse_envelope(message.payload).header)
            for stream in ("TASKS", "RESULTS", "AUDIT")
            for message in bus.stored(stream)
        ]
    declared = {header.kind: Declaration.declared_in(header.ext) for header in headers if header.iss == own}
    assert declared == {Kind.TASK: DECLARED, Kind.STATUS: DECLARED, Kind.RECORD: NOTHING_DECLARED}


async def test_a_question_without_a_declaration_is_as_before() -> None:
    engine = ScriptedEngine()
    async with TestBus(*agents(NOTHING_DECLARED), engine=engine) as bus:
        await planned(bus)
    assert {json.dumps(question["subject"]["properties"]) for question in engine.asked} == {
        '{"trust_domain": "example.org"}'
    }


async def test_a_process_records_what_its_agent_declares() -> None:
    bus = TestBus(engine=ScriptedEngine())
    node = Node(
        deployment=bus.deployment,
        identity=MemoryIdentity(bus.authority, bus.names.id_of("shop")),
        transport=bus.broker.connect(),
        engine=ScriptedEngine(),
    )
    async with node, recorded_process(node, declares=DECLARED):
        await until(lambda: bool(bus.stored("AUDIT")))
    records = [entry.record for entry in await bus.audit()]
    assert [(one.action, dict(one.facts)) for one in records if isinstance(one, ProcessRecord)] == [
        ("start", dict(DECLARED.marks)),
        ("end", dict(DECLARED.marks)),
    ]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The example's policy with the rule of docs/policy.md, which knows one model."""
    folder = tmp_path / "policy"
    shutil.copytree(EXAMPLE, folder)
    (folder / "sealbus/authz/decision_test.rego").unlink()
    chapter = PAGE.read_text().partition("## By model, prompt and tools")[2].partition("\n## ")[0]
    (folder / "sealbus/authz/decision.rego").write_text(chapter.partition("```rego\n")[2].partition("```")[0])
    (folder / "shop/models").mkdir()
    (folder / "shop/models/data.json").write_text(chapter.partition("```json\n")[2].partition("```")[0])
    grants = json.loads((folder / "sealbus/registry/agents/data.json").read_text())
    planner = "spiffe://example.org/agent/planner"
    grants.setdefault(planner, {"actions": {}})["actions"] |= {"inventory.read": True, "planner.plan.reply": True}
    grants.setdefault("spiffe://example.org/agent/shop-web", {"actions": {}})["actions"] |= {"planner.plan": True}
    (folder / "sealbus/registry/agents/data.json").write_text(json.dumps(grants))
    actions = json.loads((folder / "sealbus/registry/actions/data.json").read_text())
    actions |= {
        "planner.plan": {"user": "required", "resource": "any", "limits": {}, "hours": False},
        "planner.plan.reply": {"user": "none", "resource": "any", "limits": {}, "hours": False},
        "inventory.read": {"user": "required", "resource": "any", "limits": {}, "hours": False},
    }
    (folder / "sealbus/registry/actions/data.json").write_text(json.dumps(actions))
    return folder


@pytest.mark.parametrize(
    ("declares", "allowed"),
    [
        (DECLARED, True),
        (Declaration.of(model="m-1"), False),
        (Declaration.of(model="m-1", prompt="Be brief. Give everything away."), False),
        (Declaration.of(model="m-2", prompt="Be brief."), False),
        (NOTHING_DECLARED, False),
    ],
    ids=["known", "no prompt", "another prompt", "another model", "nothing"],
)
async def test_the_rule_of_the_page_asks_for_a_known_model_and_prompt(
    policy: Path, declares: Declaration, allowed: bool
) -> None:
    async with TestBus(*agents(declares), policy=policy) as bus:
        if allowed:
            assert await planned(bus) == "42"
            return
        client = await bus.client("planner")
        client.node.outbox.declare(declares)
        handle = await client.submit("inventory.read", Item(item_id="42"), user=bus.user("alice", "planner"))
        with pytest.raises(Denied):
            await handle.result()
        records = [entry.record for entry in await bus.audit()]
    assert [one.reasons for one in records if isinstance(one, DecisionRecord) and one.reasons] == [("unknown_model",)]
