"""What each identity may do on NATS, tried with the real `nats` command line: what is granted works, all else is refused.

The left column is what is typed after `nats`. On the right stands `True`, or the subject that the server refuses first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from support.callout import NAMES, CalloutSite, callout_site, policy_folder
from support.nats_cli import NatsCli
from support.policies import signing_key
from support.policy_bus import ANCHORS, ROOT
from support.teams import naming

from sealbus.agents.backup.restore import check_copies
from sealbus.agents.control.revoker import Revoker
from sealbus.agents.runtime.policy.push import push_signed, stored_parts
from sealbus.agents.runtime.policy.revocation import Revocation
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import api
from sealbus.bus.streams.snapshot import delete_stream, last_id, put_snapshot, take_snapshot
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import BusUnavailable
from sealbus.policies.bundle.revocations import NONE_REVOKED

pytestmark = [pytest.mark.nats]

Table = Sequence[tuple[str, bool | str]]
TASK_ID = "00112233445566778899aabbccddeeff"

TOLD = (
    '{"stream_name":"TASKS","config":{"durable_name":"id-ctl-inventory","ack_policy":"explicit",'
    '"filter_subject":"control.inventory.>"}}'
)
STOPS = '{"stream_name":"STATE","config":{"name":"x","ack_policy":"none","filter_subject":"state.*.stop.*.*"}}'

APPROVED = (
    '{"stream_name":"TASKS","config":{"durable_name":"id-apr-inventory","ack_policy":"explicit",'
    '"filter_subject":"control.inventory.approve"}}'
)


def reader(name: str, filtered: str) -> str:
    """Return what is typed for a reader of HELD."""
    config = f'{{"name":"{name}","ack_policy":"none","filter_subject":"{filtered}"}}'
    return f'request $JS.API.CONSUMER.CREATE.HELD.{name}.{filtered} {{"stream_name":"HELD","config":{config}}} --raw'


def no_reader(filtered: str) -> tuple[str, str]:
    return reader("spy", filtered), f"$JS.API.CONSUMER.CREATE.HELD.spy.{filtered}"


INVENTORY: Table = (
    # Asking others: what the policy grants it, and nothing else.
    ("pub task.pricing.quote x", True),
    ("pub task.pricing.quote.3 x", True),
    ("pub call.pricing.quote x", True),
    ("pub task.pricing.other x", "task.pricing.other"),
    ("pub call.planner.plan x", "call.planner.plan"),
    ("pub task.planner.replan x", "task.planner.replan"),
    ("pub task.pricing.quote.3.4 x", "task.pricing.quote.3.4"),
    ("pub task.inventory.update x", "task.inventory.update"),
    # Cancelling: at the agents that it may ask.
    ("pub control.pricing.cancel x", True),
    ("pub control.planner.cancel x", "control.planner.cancel"),
    ("pub control.pricing.pause x", "control.pricing.pause"),
    ("subscribe control.inventory.cancel --wait=300ms", "control.inventory.cancel"),
    # Serving: its own calls in its own group, and nobody's tasks but through its consumer.
    ("subscribe call.inventory.* --queue inventory --wait=300ms", True),
    ("subscribe call.inventory.* --wait=300ms", "call.inventory.*"),
    ("subscribe call.inventory.read --queue other --wait=300ms", "call.inventory.read"),
    ("subscribe call.pricing.* --queue pricing --wait=300ms", "call.pricing.*"),
    ("subscribe task.inventory.> --wait=300ms", "task.inventory.>"),
    ("subscribe task.> --wait=300ms", "task.>"),
    ("subscribe event.> --wait=300ms", "event.>"),
    ("subscribe > --wait=300ms", ">"),
    ("subscribe _INBOX.inventory.> --wait=300ms", True),
    ("subscribe _INBOX.pricing.> --wait=300ms", "_INBOX.pricing.>"),
    ("subscribe _INBOX.> --wait=300ms", "_INBOX.>"),
    ("subscribe $SYS.> --wait=300ms", "$SYS.>"),
    ("subscribe audit.> --wait=300ms", "audit.>"),
    ("subscribe $JS.EVENT.ADVISORY.> --wait=300ms", "$JS.EVENT.ADVISORY.>"),
    # Responder: those who may ask it, in the part of an inbox that is for answers.
    (f"pub status.shop-web.{TASK_ID} x", True),
    ("pub _INBOX.shop-web.reply.aa.1 x", True),
    ("pub _INBOX.shop-web.0123456789abcdef.aa x", "_INBOX.shop-web.0123456789abcdef.aa"),
    ("pub _INBOX.shop-web.unheard.aa.1 x", "_INBOX.shop-web.unheard.aa.1"),
    (f"pub status.stranger.{TASK_ID} x", f"status.stranger.{TASK_ID}"),
    ("pub _INBOX.operator.reply.aa.1 x", "_INBOX.operator.reply.aa.1"),
    # Saying: under its own name only.
    ("pub event.inventory.updated x", True),
    ("pub event.pricing.changed x", "event.pricing.changed"),
    ("pub audit.inventory x", True),
    ("pub audit.pricing x", "audit.pricing"),
    ("pub refused.inventory x", True),
    ("pub refused.pricing x", "refused.pricing"),
    ("pub dead.inventory.update x", True),
    ("pub dead.pricing.quote x", "dead.pricing.quote"),
    ("pub state.inventory.effect.00 x", True),
    ("pub state.pricing.effect.00 x", "state.pricing.effect.00"),
    ("pub $SYS.REQ.USER.AUTH x", "$SYS.REQ.USER.AUTH"),
    ("pub anything x", "anything"),
    # Streams: look at how they are declared, and never change one.
    ("stream ls", True),
    ("request $JS.API.STREAM.LIST {} --raw", True),
    ("request $JS.API.STREAM.NAMES {} --raw", True),
    # What a stream holds by subject: with it the ids of everybody's tasks.
    ("stream info TASKS --json", "$JS.API.STREAM.INFO.TASKS"),
    ("stream subjects RESULTS", "$JS.API.STREAM.INFO.RESULTS"),
    ('request $JS.API.STREAM.INFO.STATE {"subjects_filter":">"} --raw', "$JS.API.STREAM.INFO.STATE"),
    ("stream add X --subjects=x.> --defaults", "$JS.API.INFO"),
    ("request $JS.API.STREAM.UPDATE.TASKS {}", "$JS.API.STREAM.UPDATE.TASKS"),
    ("request $JS.API.STREAM.PURGE.TASKS {}", "$JS.API.STREAM.PURGE.TASKS"),
    ("stream rm DEAD -f", "$JS.API.STREAM.DELETE.DEAD"),
    ("request $JS.API.STREAM.MSG.DELETE.TASKS {}", "$JS.API.STREAM.MSG.DELETE.TASKS"),
    ("stream seal TASKS -f", "$JS.API.STREAM.INFO.TASKS"),
    ("request $JS.API.STREAM.MSG.GET.AUDIT {}", "$JS.API.STREAM.MSG.GET.AUDIT"),
    ("request $JS.API.STREAM.MSG.GET.TASKS {}", "$JS.API.STREAM.MSG.GET.TASKS"),
    # Whose pseudonym is whose.
    ("pub people.00ff x", "people.00ff"),
    ("request $JS.API.DIRECT.GET.PEOPLE.people.00ff {}", "$JS.API.DIRECT.GET.PEOPLE.people.00ff"),
    ("request $JS.API.CONSUMER.CREATE.PEOPLE.spy.people.> {}", "$JS.API.CONSUMER.CREATE.PEOPLE.spy.people.>"),
    ('request $JS.API.STREAM.MSG.DELETE.PEOPLE {"seq":1}', "$JS.API.STREAM.MSG.DELETE.PEOPLE"),
    ("kv ls", True),
    ("object ls", True),
    # Consumers: its own of tasks, of events, and readers of its own statuses.
    ("request $JS.API.CONSUMER.INFO.TASKS.inventory {} --raw", True),
    ("consumer info TASKS pricing", "$JS.API.CONSUMER.INFO.TASKS.pricing"),
    ("request $JS.API.CONSUMER.CREATE.TASKS.inventory.task.pricing.> {}",
     "$JS.API.CONSUMER.CREATE.TASKS.inventory.task.pricing.>"),
    ("request $JS.API.CONSUMER.CREATE.TASKS.inventory {}", "$JS.API.CONSUMER.CREATE.TASKS.inventory"),
    ("request $JS.API.CONSUMER.CREATE.TASKS.spy.task.inventory.> {}",
     "$JS.API.CONSUMER.CREATE.TASKS.spy.task.inventory.>"),
    ("request $JS.API.CONSUMER.DURABLE.CREATE.TASKS.inventory {}", "$JS.API.CONSUMER.DURABLE.CREATE.TASKS.inventory"),
    ("request $JS.API.CONSUMER.CREATE.AUDIT.x.audit.pricing {}", "$JS.API.CONSUMER.CREATE.AUDIT.x.audit.pricing"),
    ("request $JS.API.CONSUMER.CREATE.RESULTS.x.status.pricing.* {}",
     "$JS.API.CONSUMER.CREATE.RESULTS.x.status.pricing.*"),
    ("request $JS.API.CONSUMER.CREATE.STATE.x.state.pricing.> {}", "$JS.API.CONSUMER.CREATE.STATE.x.state.pricing.>"),
    ("request $JS.API.CONSUMER.CREATE.DEAD.x.dead.> {}", "$JS.API.CONSUMER.CREATE.DEAD.x.dead.>"),
    # What it is told, and what was canceled of anybody's.
    (f"request $JS.API.CONSUMER.CREATE.TASKS.id-ctl-inventory.control.inventory.> {TOLD} --raw", True),
    ("request $JS.API.CONSUMER.INFO.TASKS.id-ctl-pricing {}", "$JS.API.CONSUMER.INFO.TASKS.id-ctl-pricing"),
    ("request $JS.API.CONSUMER.CREATE.TASKS.id-ctl-inventory.control.pricing.> {}",
     "$JS.API.CONSUMER.CREATE.TASKS.id-ctl-inventory.control.pricing.>"),
    ("request $JS.API.CONSUMER.MSG.NEXT.TASKS.id-ctl-pricing 1", "$JS.API.CONSUMER.MSG.NEXT.TASKS.id-ctl-pricing"),
    (f"request $JS.API.CONSUMER.CREATE.STATE.x.state.*.stop.*.* {STOPS} --raw", True),
    ("request $JS.API.CONSUMER.CREATE.STATE.x.state.*.effect.*.* {}", "$JS.API.CONSUMER.CREATE.STATE.x.state.*.effect.*.*"),
    ("pub state.pricing.stop.00.inventory x", "state.pricing.stop.00.inventory"),
    # What was approved comes through a consumer of its own; nobody but the edge says so.
    (f"request $JS.API.CONSUMER.CREATE.TASKS.id-apr-inventory.control.inventory.approve {APPROVED} --raw", True),
    ("request $JS.API.CONSUMER.INFO.TASKS.id-apr-pricing {}", "$JS.API.CONSUMER.INFO.TASKS.id-apr-pricing"),
    ("pub control.pricing.approve x", "control.pricing.approve"),
    # Values that outlive a day: its own, and those of others that concern it.
    ("pub held.inventory.task.q.00 x", True),
    ("pub held.pricing.task.q.00 x", "held.pricing.task.q.00"),
    ("pub held.notary.keys x", "held.notary.keys"),
    (reader("a", "held.inventory.task.*.00"), True),
    (reader("b", "held.inventory.schedule.*"), True),
    (reader("c", "held.*.wait.inventory.00"), True),
    (reader("d", "held.*.stop.00.*"), True),
    (reader("e", "held.notary.keys"), True),
    no_reader("held.pricing.task.*.00"),
    no_reader("held.*.task.>"),
    no_reader("held.*.wait.pricing.00"),
    no_reader("held.*.effect.00"),
    no_reader("held.>"),
    ("request $JS.API.DIRECT.GET.HELD.held.inventory.task.q.00 x", "$JS.API.DIRECT.GET.HELD.held.inventory.task.q.00"),
    ("request $JS.API.STREAM.PURGE.HELD {}", "$JS.API.STREAM.PURGE.HELD"),
    ("consumer next TASKS pricing --count=1", "$JS.API.CONSUMER.INFO.TASKS.pricing"),
    ("request $JS.API.CONSUMER.MSG.NEXT.TASKS.pricing 1", "$JS.API.CONSUMER.MSG.NEXT.TASKS.pricing"),
    ("request $JS.API.CONSUMER.MSG.NEXT.EVENTS.pricing 1", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.pricing"),
    ("pub $JS.ACK.TASKS.inventory.1.1.1.1700000000000000000.0 +ACK", True),
    ("pub $JS.ACK.TASKS.pricing.1.1.1.1700000000000000000.0 +ACK", "$JS.ACK.TASKS.pricing.1.1.1.1700000000000000000.0"),
    ("consumer rm TASKS pricing -f", "$JS.API.CONSUMER.DELETE.TASKS.pricing"),
    ("consumer rm TASKS inventory -f", True),
    ("request $JS.API.CONSUMER.PAUSE.TASKS.inventory {}", "$JS.API.CONSUMER.PAUSE.TASKS.inventory"),
    ("request $JS.API.CONSUMER.NAMES.TASKS {}", "$JS.API.CONSUMER.NAMES.TASKS"),
    ("request $JS.API.DIRECT.GET.STATE.state.inventory.effect.00 x", True),
    ("request $JS.API.DIRECT.GET.STATE.state.pricing.effect.00 x", "$JS.API.DIRECT.GET.STATE.state.pricing.effect.00"),
    ("request $JS.API.DIRECT.GET.STATE x", "$JS.API.DIRECT.GET.STATE"),
    # The bucket of policies: for reading only.
    ("request $JS.API.STREAM.PURGE.OBJ_policies {}", "$JS.API.STREAM.PURGE.OBJ_policies"),
    ("pub $O.policies.M.cGxhdGZvcm0= x", "$O.policies.M.cGxhdGZvcm0="),
    # The server itself.
    ("account info", "$SYS.REQ.USER.INFO"),
    ("server ping", "$SYS.REQ.SERVER.PING"),
    ("server list", "$SYS.REQ.SERVER.PING"),
)  # fmt: skip

READER = '{"stream_name":"AUDIT","config":{"name":"look","ack_policy":"none"}}'
PEOPLE_READER = READER.replace("AUDIT", "PEOPLE").replace("}}", ',"filter_subject":"people.>"}}')

OPERATOR: Table = (
    ("stream ls", True),
    ("stream info TASKS --json", True),
    ("stream edit REFUSALS --max-msgs=100000 -f", True),
    (f"request $JS.API.CONSUMER.CREATE.AUDIT.look {READER} --raw", True),
    ("request $JS.API.CONSUMER.MSG.NEXT.AUDIT.look 1 --raw", True),
    ("stream purge TASKS -f", "$JS.API.STREAM.PURGE.TASKS"),
    ("stream rm AUDIT -f", "$JS.API.STREAM.DELETE.AUDIT"),
    ("stream rmm AUDIT 1 -f", "$JS.API.STREAM.MSG.DELETE.AUDIT"),
    # Pseudonyms of people: to read and to delete, but not to give.
    ("pub people.00ff x", "people.00ff"),
    ('request $JS.API.STREAM.MSG.GET.PEOPLE {"seq":1}', "$JS.API.STREAM.MSG.GET.PEOPLE"),
    ("request $JS.API.STREAM.PURGE.PEOPLE {}", "$JS.API.STREAM.PURGE.PEOPLE"),
    ('request $JS.API.STREAM.MSG.DELETE.PEOPLE {"seq":1} --raw', True),
    (f"request $JS.API.CONSUMER.CREATE.PEOPLE.look.people.> {PEOPLE_READER} --raw", True),
    ("request $JS.API.CONSUMER.MSG.NEXT.PEOPLE.look 1 --raw", True),
    ("request $JS.API.CONSUMER.DELETE.PEOPLE.look {} --raw", True),
    ("request $JS.API.DIRECT.GET.PEOPLE.people.00ff {} --raw", True),
    ("request $JS.API.CONSUMER.CREATE.TASKS.spy.task.> {}", "$JS.API.CONSUMER.CREATE.TASKS.spy.task.>"),
    ("request $JS.API.CONSUMER.CREATE.RESULTS.spy.status.> {}", "$JS.API.CONSUMER.CREATE.RESULTS.spy.status.>"),
    ("pub audit.inventory x", "audit.inventory"),
    ("pub task.pricing.quote x", "task.pricing.quote"),
    ("subscribe _INBOX.inventory.> --wait=300ms", "_INBOX.inventory.>"),
)  # fmt: skip

REPAIRER: Table = (
    ("stream ls", True),
    *(
        (f"request $JS.API.CONSUMER.CREATE.{stream}.look {READER.replace('AUDIT', stream)} --raw", True)
        for stream in ("TASKS", "RESULTS", "EVENTS", "DEAD", "AUDIT")
    ),
    ("request $JS.API.CONSUMER.LIST.TASKS {} --raw", True),
    ("request $JS.API.CONSUMER.LIST.EVENTS {} --raw", True),
    ('request $JS.API.STREAM.MSG.DELETE.DEAD {"seq":1} --raw', True),
    ("pub event.repairer.dropped x", True),
    ('request $JS.API.STREAM.MSG.DELETE.TASKS {"seq":1}', "$JS.API.STREAM.MSG.DELETE.TASKS"),
    ("request $JS.API.STREAM.PURGE.DEAD {}", "$JS.API.STREAM.PURGE.DEAD"),
    ("request $JS.API.STREAM.UPDATE.TASKS {}", "$JS.API.STREAM.UPDATE.TASKS"),
    ("request $JS.API.CONSUMER.CREATE.STATE.spy.state.> {}", "$JS.API.CONSUMER.CREATE.STATE.spy.state.>"),
    ("pub $JS.ACK.TASKS.inventory.1.1.1.1700000000000000000.0 +ACK",
     "$JS.ACK.TASKS.inventory.1.1.1.1700000000000000000.0"),
    ("pub $O.policies.M.cGxhdGZvcm0= x", "$O.policies.M.cGxhdGZvcm0="),
    ("pub task.pricing.quote x", "task.pricing.quote"),
    ("pub dead.inventory.update x", "dead.inventory.update"),
)  # fmt: skip

EDGE: Table = (
    ("pub task.inventory.update x", True),
    ("pub call.planner.plan x", True),
    ("pub call.revoker.revoke x", True),
    ("pub call.pricing.quote x", "call.pricing.quote"),
    ("pub audit.edge x", True),
    # Approvals: at whom it may ask; and what waits for them, whoever keeps it.
    ("pub control.inventory.approve x", True),
    ("pub control.pricing.approve x", "control.pricing.approve"),
    ("pub held.edge.x x", True),
    ("pub held.inventory.task.q.00 x", "held.inventory.task.q.00"),
    # People: to give one a pseudonym and to find it, one by one.
    ("pub people.00ff x", True),
    ("pub people.00ff.x x", "people.00ff.x"),
    ("request $JS.API.DIRECT.GET.PEOPLE.people.00ff {} --raw", True),
    ("request $JS.API.CONSUMER.CREATE.PEOPLE.spy.people.> {}", "$JS.API.CONSUMER.CREATE.PEOPLE.spy.people.>"),
    ('request $JS.API.STREAM.MSG.DELETE.PEOPLE {"seq":1}', "$JS.API.STREAM.MSG.DELETE.PEOPLE"),
    (reader("a", "held.*.task.>"), True),
    (reader("b", "held.*.task.managers.*"), True),
    no_reader("held.*.effect.00"),
    no_reader("held.>"),
    ("pub $O.policies.M.cmV2b2NhdGlvbnM= x", "$O.policies.M.cmV2b2NhdGlvbnM="),
    (f"pub status.edge.{TASK_ID} x", f"status.edge.{TASK_ID}"),
    ("request $JS.API.STREAM.PURGE.TASKS {}", "$JS.API.STREAM.PURGE.TASKS"),
)

REVOKER: Table = (
    # One object, in two chunks by turns.
    ("pub $O.policies.C.revocations0 x", True),
    ("pub $O.policies.C.revocations1 x", True),
    ("pub $O.policies.M.cmV2b2NhdGlvbnM= x", True),
    ("pub $O.policies.C.revocations2 x", "$O.policies.C.revocations2"),
    ("pub $O.policies.C.platform0 x", "$O.policies.C.platform0"),
    ("pub $O.policies.M.cGxhdGZvcm0= x", "$O.policies.M.cGxhdGZvcm0="),
    ("pub $O.policies.M.cmV2b2NhdGlvbnNAMQ== x", "$O.policies.M.cmV2b2NhdGlvbnNAMQ=="),
    ("object rm policies revocations -f", "$JS.API.STREAM.INFO.OBJ_policies"),
    ("request $JS.API.STREAM.PURGE.OBJ_policies {}", "$JS.API.STREAM.PURGE.OBJ_policies"),
    ('request $JS.API.STREAM.MSG.DELETE.OBJ_policies {"seq":1}', "$JS.API.STREAM.MSG.DELETE.OBJ_policies"),
    ("request $JS.API.STREAM.UPDATE.OBJ_policies {}", "$JS.API.STREAM.UPDATE.OBJ_policies"),
    # An agent that serves one call, to the edge.
    ("subscribe call.revoker.* --queue revoker --wait=300ms", True),
    ("subscribe call.edge.* --queue edge --wait=300ms", "call.edge.*"),
    ("pub audit.revoker x", True),
    ("pub _INBOX.edge.reply.aa.1 x", True),
    ("pub _INBOX.inventory.reply.aa.1 x", "_INBOX.inventory.reply.aa.1"),
    ("pub call.inventory.read x", "call.inventory.read"),
    ("pub task.inventory.update x", "task.inventory.update"),
    ("request $JS.API.CONSUMER.CREATE.AUDIT.look {}", "$JS.API.CONSUMER.CREATE.AUDIT.look"),
)  # fmt: skip

CONTROL: Table = (
    (f"request $JS.API.CONSUMER.CREATE.AUDIT.look {READER} --raw", True),
    ("pub audit.control x", True),
    ("pub held.control.keys x", True),
    # How much waits for each agent, and not for whom statuses are: those consumers' names are secrets.
    ("request $JS.API.CONSUMER.LIST.TASKS {} --raw", True),
    ("request $JS.API.CONSUMER.LIST.EVENTS {} --raw", True),
    ("request $JS.API.INFO {} --raw", True),
    ("request $JS.API.CONSUMER.LIST.RESULTS {}", "$JS.API.CONSUMER.LIST.RESULTS"),
    ("request $JS.API.CONSUMER.INFO.RESULTS.read-1 {}", "$JS.API.CONSUMER.INFO.RESULTS.read-1"),
    ("pub held.notary.keys x", "held.notary.keys"),
    ("pub audit.inventory x", "audit.inventory"),
    ("request $JS.API.STREAM.UPDATE.AUDIT {}", "$JS.API.STREAM.UPDATE.AUDIT"),
    ("pub task.pricing.quote x", "task.pricing.quote"),
    ("subscribe $SYS.REQ.USER.AUTH --queue sealbus-callout --wait=300ms", "$SYS.REQ.USER.AUTH"),
)  # fmt: skip


def cli(site: CalloutSite, name: str, folder: Path) -> NatsCli:
    spiffe_id = NAMES.id_of(name)
    return NatsCli(
        site.url, folder, ca=site.ca, svid=site.ca.issue(str(spiffe_id)), inbox=NAMES.inbox_prefix(spiffe_id)
    )


async def outcome(nats: NatsCli, typed: str) -> bool | str:
    """Return whether a command worked, or the subject that the server refused first."""
    said = await nats.run(*typed.split())
    if not said.violation:
        # The API answers what it could not do as JSON, which the command line takes for success.
        return True if said.code == 0 and '"error"' not in said.text else f"code {said.code}: {said.text[-300:]}"
    return said.text.lower().split("permissions violation for", 1)[1].split('"')[1]


async def tried(nats: NatsCli, table: Table) -> dict[str, bool | str]:
    """Return what came of each line of a table, in its order; a few are tried at a time."""
    few = asyncio.Semaphore(4)

    async def one(typed: str) -> bool | str:
        async with few:
            return await outcome(nats, typed)

    found = await asyncio.gather(*(one(typed) for typed, _ in table))
    return {typed: came for (typed, _), came in zip(table, found, strict=True)}


def wanted(table: Table) -> dict[str, bool | str]:
    return {typed: came.lower() if isinstance(came, str) else came for typed, came in table}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[CalloutSite]:
    async with callout_site(tmp_path / "site", responders=2) as running:
        await running.apply_streams()
        yield running


def test_the_tables_are_long_enough() -> None:
    assert len(INVENTORY) >= 70
    assert len({typed for typed, _ in INVENTORY}) == len(INVENTORY)
    assert sum(came is True for _, came in INVENTORY) >= 15


async def test_an_agent_with_the_real_command_line(site: CalloutSite, tmp_path: Path) -> None:
    async with site.connection("inventory") as connection:
        config = {"name": "inventory", "durable_name": "inventory", "ack_policy": "explicit"}
        config["filter_subject"] = "task.inventory.>"
        made = {"stream_name": "TASKS", "config": config}
        await api(connection.jetstream, "CONSUMER.CREATE.TASKS.inventory.task.inventory.>", made)
    async with site.raw("inventory") as raw:
        await raw.request("state.inventory.effect.00", b"kept")
    assert await tried(cli(site, "inventory", tmp_path), INVENTORY) == wanted(INVENTORY)


@pytest.mark.parametrize(
    ("name", "table"),
    [("operator", OPERATOR), ("edge", EDGE), ("control", CONTROL)],
    ids=["operator", "edge", "control"],
)
async def test_other_identities_with_the_real_command_line(
    site: CalloutSite, tmp_path: Path, name: str, table: Table
) -> None:
    async with site.raw("inventory") as raw:
        await raw.request("audit.inventory", b"a record")
    async with site.raw("edge") as raw:
        await raw.request("people.00aa", b"a row")
    nats = cli(site, name, tmp_path)
    # In their order: some look at what others made.
    assert {typed: await outcome(nats, typed) for typed, _ in table} == wanted(table)


async def test_the_revoker_replaces_revocations_and_nothing_else(site: CalloutSite, tmp_path: Path) -> None:
    key = signing_key()
    async with site.connection("operator") as operator, site.connection("revoker") as connection:
        theirs, ours = PolicyStore(operator, "policies"), PolicyStore(connection, "policies")
        await theirs.create()
        await push_signed(theirs, ANCHORS, "platform", naming(ROOT, {}, key, serial=1))
        revoker = Revoker(ours, ANCHORS, key, in_force=lambda: NONE_REVOKED)
        publishing = asyncio.create_task(revoker.run())
        for number in range(3):
            one = Revocation(kind="session", issuer="https://idp.example", id=f"s-{number}", at=wall_clock())
            await revoker.revoke(one)
        publishing.cancel()
        parts, _ = await stored_parts(theirs, ANCHORS)
        assert (len(parts.revocations.sessions), parts.problems) == (3, {})
        # What an operator's command line shows of it.
        listed = await cli(site, "operator", tmp_path).run("object", "ls", "policies")
        assert "revocations" in listed.text
        found = await cli(site, "operator", tmp_path).run(
            *("object", "get", "policies", "revocations", "--output", str(tmp_path / "raw"), "-f")
        )
        assert found.code == 0, found.text
        stored = await theirs.read("revocations")
        assert stored is not None
        assert (tmp_path / "raw").read_bytes() == stored.raw
        # As the operator it replaces the platform's part; as the revoker it does not.
        before = await ours.read("platform")
        assert before is not None
        with pytest.raises(BusUnavailable):
            await ours.objects.put("platform", b"x", last=before.last)
        assert await theirs.read("platform") == before
    nats = cli(site, "revoker", tmp_path)
    assert {typed: await outcome(nats, typed) for typed, _ in REVOKER} == wanted(REVOKER)


async def test_who_repairs_has_a_role_of_its_own(tmp_path: Path) -> None:
    """It may see what is in the streams and delete dead letters, and is given to nobody unless a deployment does so."""
    placed: Json = {NAMES.id_of("repairer").value: {"role": "repairer", "tenant": "default"}}
    policy = policy_folder(tmp_path / "policy", workloads=placed)
    async with callout_site(tmp_path / "site", policy=policy) as running:
        await running.apply_streams()
        async with running.raw("inventory") as raw:
            await raw.request("dead.inventory.update", b"a letter")
        nats = cli(running, "repairer", tmp_path)
        assert {typed: await outcome(nats, typed) for typed, _ in REPAIRER} == wanted(REPAIRER)


async def test_who_backs_up_has_a_role_of_its_own(tmp_path: Path) -> None:
    """Snapshots, restoring and the check, and no other way to change a stream; nobody has it unless a deployment says so."""
    placed: Json = {NAMES.id_of("backup").value: {"role": "backup", "tenant": "default"}}
    policy = policy_folder(tmp_path / "policy", workloads=placed)
    async with callout_site(tmp_path / "site", policy=policy) as running:
        await running.apply_streams()
        async with running.raw("inventory") as raw:
            await raw.request("audit.inventory", b"a record")
        async with running.connection("backup") as connection:
            data = BytesIO()
            snapshot = await take_snapshot(connection, "AUDIT", data.write)
            await delete_stream(connection.jetstream, "AUDIT")
            data.seek(0)
            assert (await put_snapshot(connection, "AUDIT", snapshot, data.read)).messages == 1
            assert await last_id(connection.jetstream, "AUDIT", "audit.>") is not None
            assert await check_copies(connection) == []
        nats = cli(running, "backup", tmp_path)
        for refused in ("STREAM.PURGE.AUDIT", "STREAM.UPDATE.AUDIT", "STREAM.MSG.DELETE.AUDIT"):
            assert await outcome(nats, f"request $JS.API.{refused} {{}}") == f"$JS.API.{refused}".lower()
        nats = cli(running, "operator", tmp_path)
        for refused in ("STREAM.SNAPSHOT.AUDIT", "STREAM.RESTORE.AUDIT", "STREAM.DELETE.AUDIT"):
            assert await outcome(nats, f"request $JS.API.{refused} {{}}") == f"$JS.API.{refused}".lower()


async def test_a_certificate_that_is_not_let_in_does_nothing_at_all(site: CalloutSite, tmp_path: Path) -> None:
    said = await cli(site, "stranger", tmp_path).run("pub", "task.pricing.quote", "x")
    assert said.code == 1
    assert "authorization violation" in said.text.lower()


async def test_a_grant_that_is_withdrawn_is_gone_at_the_next_connection(tmp_path: Path) -> None:
    policy = policy_folder(
        tmp_path / "policy", agents={"spiffe://example.org/agent/inventory": {"actions": {"pricing.quote": False}}}
    )
    async with callout_site(tmp_path / "site", policy=policy) as running:
        await running.apply_streams()
        nats = cli(running, "inventory", tmp_path)
        assert await outcome(nats, "pub call.pricing.quote x") == "call.pricing.quote"
        assert await outcome(nats, "pub audit.inventory x") is True
