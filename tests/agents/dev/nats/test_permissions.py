from __future__ import annotations

import json

import pytest

from sealbus.agents.dev.nats.config import BrokerRole, Permissions, permissions_of
from sealbus.bus.streams.declared import own_durable
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject, matches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.library import library_files

NAMES = Names(TrustDomain("example.org"))
INVENTORY = NAMES.id_of("inventory")
OTHER = NAMES.id_of("other")


def own(subject: str, kind: Kind, owner: SpiffeId) -> OwnSubject:
    return OwnSubject(subject=subject, kind=kind, owner=owner, action="a.b")


OWN = (
    own("orders.ship", Kind.TASK, INVENTORY),
    own("orders.ask", Kind.CALL, INVENTORY),
    own("orders.paid", Kind.EVENT, INVENTORY),
    own("mail.send", Kind.TASK, OTHER),
    own("mail.ask", Kind.CALL, OTHER),
    own("mail.sent", Kind.EVENT, OTHER),
)
AGENT = permissions_of(BrokerRole.AGENT, INVENTORY, NAMES, OWN)
OPERATOR = permissions_of(BrokerRole.OPERATOR, INVENTORY, NAMES, OWN)


def may_publish(permissions: Permissions, subject: str) -> bool:
    return any(matches(one, subject) for one in permissions.publish)


def may_subscribe(permissions: Permissions, subject: str) -> bool:
    return any(matches(one, subject) for one in permissions.subscribe)


ALLOWED = [
    "task.inventory.update",
    "task.other.update.7",
    "call.other.quote",
    "status.shop.00112233445566778899aabbccddeeff",
    "event.inventory.changed",
    "dead.inventory.update",
    "audit.inventory",
    "refused.inventory",
    "state.inventory.effect.00",
    "$JS.API.DIRECT.GET.STATE.state.inventory.effect.00",
    "control.other.cancel",
    "control.other.schedule",
    "control.inventory.schedule",
    "held.inventory.task.q.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.inventory.task.*.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.inventory.schedule.*",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.inventory.effect.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.wait.inventory.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.stop.00.*",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.notary.keys",
    "$JS.API.CONSUMER.MSG.NEXT.HELD.read-0011",
    "$JS.API.CONSUMER.DELETE.HELD.read-0011",
    "$JS.API.CONSUMER.CREATE.TASKS.id-ctl-inventory.control.inventory.>",
    "$JS.API.CONSUMER.CREATE.TASKS.id-ctl-inventory.control.inventory.cancel",
    "$JS.API.CONSUMER.CREATE.TASKS.id-apr-inventory.control.inventory.approve",
    "$JS.API.CONSUMER.INFO.TASKS.id-apr-inventory",
    "$JS.API.CONSUMER.MSG.NEXT.TASKS.id-apr-inventory",
    "$JS.ACK.TASKS.id-apr-inventory.1.2.3.4.5",
    "$JS.API.CONSUMER.CREATE.TASKS.id-sch-inventory.control.inventory.schedule",
    "$JS.ACK.TASKS.id-sch-inventory.1.2.3.4.5",
    "_INBOX.other.reply.abc.7",
    "orders.ship",
    "orders.ask",
    "orders.paid",
    "mail.send",
    "mail.ask",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.NAMES",
    "$JS.API.CONSUMER.CREATE.TASKS.inventory.task.inventory.>",
    f"$JS.API.CONSUMER.CREATE.TASKS.{own_durable('orders.ship')}.orders.ship",
    f"$JS.API.CONSUMER.MSG.NEXT.TASKS.{own_durable('orders.ship')}",
    f"$JS.ACK.TASKS.{own_durable('orders.ship')}.1.2.3.4.5",
    "$JS.API.CONSUMER.INFO.TASKS.inventory",
    "$JS.API.CONSUMER.MSG.NEXT.TASKS.inventory",
    "$JS.ACK.TASKS.inventory.1.2.3.4.5",
    "$JS.API.CONSUMER.CREATE.EVENTS.inventory.event.other.>",
    "$JS.API.CONSUMER.CREATE.EVENTS.inventory",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.inventory",
    "$JS.API.CONSUMER.CREATE.RESULTS.read-0011.status.inventory.00ff",
    "$JS.API.CONSUMER.MSG.NEXT.RESULTS.read-0011",
    "$JS.API.CONSUMER.DELETE.RESULTS.read-0011",
]
DENIED = [
    "event.other.changed",
    "dead.other.update",
    "audit.other",
    "audit.inventory.more",
    "refused.other",
    "state.other.effect.00",
    "control.other.approve",
    "control.other.other",
    "held.other.task.q.00",
    "held.inventory",
    "people.00ff",
    "$JS.API.DIRECT.GET.PEOPLE.people.00ff",
    "$JS.API.CONSUMER.CREATE.PEOPLE.read-0011.people.>",
    "$JS.API.STREAM.MSG.GET.PEOPLE",
    "$JS.API.STREAM.MSG.DELETE.PEOPLE",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.>",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.task.>",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.task.*.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.other.task.q.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.other.>",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.wait.other.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.wait.>",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.wait.*.00",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.stop.>",
    "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.effect.00",
    "$JS.API.CONSUMER.CREATE.TASKS.id-apr-inventory.control.inventory.>",
    "$JS.API.CONSUMER.CREATE.TASKS.id-apr-inventory.control.other.approve",
    "$JS.API.CONSUMER.CREATE.TASKS.id-apr-other.control.other.approve",
    "$JS.API.CONSUMER.CREATE.TASKS.id-sch-inventory.control.other.schedule",
    "$JS.API.CONSUMER.CREATE.TASKS.id-sch-inventory.control.inventory.approve",
    "$JS.API.CONSUMER.MSG.NEXT.TASKS.id-apr-other",
    "$JS.API.DIRECT.GET.HELD.held.inventory.task.q.00",
    "$JS.API.STREAM.INFO.HELD",
    "$JS.API.STREAM.PURGE.HELD",
    "$JS.API.STREAM.MSG.DELETE.HELD",
    "$JS.API.DIRECT.GET.STATE",
    "$JS.API.DIRECT.GET.STATE.state.other.effect.00",
    "$JS.API.STREAM.MSG.GET.STATE",
    "mail.sent",
    "orders.unknown",
    "_INBOX.other",
    "_INBOX.other.abc",
    "_INBOX.other.abc.7",
    "_INBOX.other.abc.7.8",
    "_INBOX.other.reply.abc",
    "_INBOX.other.reply.abc.7.8",
    "$JS.API.STREAM.INFO.RESULTS",
    "$JS.API.STREAM.INFO.STATE",
    "$JS.API.STREAM.INFO.AUDIT",
    "$JS.API.STREAM.INFO.OBJ_policies",
    "$JS.API.STREAM.CREATE.TASKS",
    "$JS.API.STREAM.UPDATE.TASKS",
    "$JS.API.STREAM.DELETE.TASKS",
    "$JS.API.STREAM.PURGE.TASKS",
    "$JS.API.STREAM.MSG.GET.AUDIT",
    "$JS.API.STREAM.MSG.DELETE.TASKS",
    "$JS.API.DIRECT.GET.AUDIT",
    "$JS.API.CONSUMER.CREATE.TASKS.inventory.task.other.>",
    "$JS.API.CONSUMER.CREATE.TASKS.inventory.mail.send",
    "$JS.API.CONSUMER.CREATE.TASKS.inventory.orders.ship",
    "$JS.API.CONSUMER.CREATE.TASKS.inventory",
    f"$JS.API.CONSUMER.CREATE.TASKS.{own_durable('orders.ship')}",
    f"$JS.API.CONSUMER.CREATE.TASKS.{own_durable('orders.ship')}.mail.send",
    f"$JS.API.CONSUMER.CREATE.TASKS.{own_durable('mail.send')}.mail.send",
    f"$JS.API.CONSUMER.MSG.NEXT.TASKS.{own_durable('mail.send')}",
    "$JS.API.CONSUMER.CREATE.TASKS.other.task.inventory.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.TASKS.inventory",
    "$JS.API.CONSUMER.MSG.NEXT.TASKS.other",
    "$JS.API.CONSUMER.DELETE.TASKS.other",
    "$JS.API.CONSUMER.NAMES.RESULTS",
    "$JS.ACK.TASKS.other.1.2.3.4.5",
    "$JS.API.CONSUMER.CREATE.RESULTS.read-0011.status.other.00ff",
    "$JS.API.CONSUMER.CREATE.RESULTS.read-0011",
    "$JS.API.CONSUMER.CREATE.AUDIT.read-0011",
    "$SYS.REQ.SERVER.PING",
]


@pytest.mark.parametrize("subject", ALLOWED)
def test_an_agent_may_publish_what_its_part_needs(subject: str) -> None:
    assert may_publish(AGENT, subject)


@pytest.mark.parametrize("subject", DENIED)
def test_an_agent_may_publish_nothing_else(subject: str) -> None:
    assert not may_publish(AGENT, subject)


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("_INBOX.inventory.x", True),
        ("call.inventory.quote", True),
        ("orders.ask", True),
        # What streams hold is read from them: a subscription would hear it before anybody decides about its reader.
        ("task.inventory.update", False),
        ("event.other.changed", False),
        ("orders.ship", False),
        ("mail.sent", False),
        ("_INBOX.other.x", False),
        ("task.other.update", False),
        ("call.other.quote", False),
        ("status.inventory.00", False),
        ("audit.inventory", False),
        ("refused.inventory", False),
        ("mail.send", False),
        ("mail.ask", False),
        ("$JS.EVENT.ADVISORY.API", False),
    ],
)
def test_an_agent_hears_its_calls_and_its_inbox(subject: str, allowed: bool) -> None:
    assert may_subscribe(AGENT, subject) is allowed


def test_an_operator_manages_streams_and_is_no_other_agent() -> None:
    for subject in ("$JS.API.STREAM.UPDATE.TASKS", "$JS.API.CONSUMER.CREATE.AUDIT.read-1", "$JS.ACK.AUDIT.x.1"):
        assert may_publish(OPERATOR, subject)
    for subject in ("audit.other", "event.other.changed", "refused.other", "mail.sent", "$SYS.REQ.SERVER.PING"):
        assert not may_publish(OPERATOR, subject)
    assert OPERATOR.subscribe == AGENT.subscribe


def test_an_id_without_a_name_goes_by_its_token() -> None:
    stranger = SpiffeId("spiffe://other.org/workload")
    token = NAMES.token(stranger)
    permissions = permissions_of(BrokerRole.AGENT, stranger, NAMES)
    assert may_publish(permissions, f"audit.{token}")
    assert may_subscribe(permissions, f"_INBOX.{token}.x")
    assert not may_subscribe(permissions, "_INBOX.workload.x")


def test_an_edge_is_an_agent_that_reads_what_waits_and_tells_of_approvals_as_the_starter_policy_has_it() -> None:
    edge = permissions_of(BrokerRole.EDGE, INVENTORY, NAMES, OWN)
    roles = json.loads(library_files()["sealbus/lib/roles/data.json"])
    starter = [one.replace("{self}", "inventory") for one in roles["edge"]["publish"]]
    assert set(edge.publish) - set(AGENT.publish) == {"control.*.approve", *starter}
    assert edge.subscribe == AGENT.subscribe
    for subject in (
        "control.other.approve",
        "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.task.>",
        "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.task.managers.00",
        "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.task.managers.*",
        "$JS.API.CONSUMER.CREATE.STATE.read-0011.state.inventory.a2a.push.*",
    ):
        assert may_publish(edge, subject)
        assert not may_publish(AGENT, subject)
    for subject in (
        "control.other.other",
        "held.other.task.q.00",
        "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.>",
        "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.effect.00",
        "$JS.API.CONSUMER.CREATE.HELD.read-0011.held.*.wait.other.00",
        "$JS.API.CONSUMER.CREATE.STATE.read-0011.state.other.a2a.push.*",
        "$JS.API.CONSUMER.CREATE.STATE.read-0011.state.inventory.>",
    ):
        assert not may_publish(edge, subject)


def test_a_revoker_is_an_agent_that_replaces_one_object_as_the_starter_policy_has_it() -> None:
    revoker = permissions_of(BrokerRole.REVOKER, INVENTORY, NAMES, OWN)
    roles = json.loads(library_files()["sealbus/lib/roles/data.json"])
    assert set(revoker.publish) - set(AGENT.publish) == set(roles["revoker"]["publish"])
    assert revoker.subscribe == AGENT.subscribe
    for subject in (
        "$O.policies.C.revocations2",
        "$O.policies.M.cGxhdGZvcm0=",
        "$JS.API.STREAM.PURGE.OBJ_policies",
        "$JS.API.STREAM.MSG.DELETE.OBJ_policies",
    ):
        assert not may_publish(revoker, subject)


def test_who_backs_up_is_an_agent_that_has_what_the_library_gives() -> None:
    backup = permissions_of(BrokerRole.BACKUP, INVENTORY, NAMES, OWN)
    roles = json.loads(library_files()["sealbus/lib/roles/data.json"])
    # An agent here may publish tasks to anybody anyway.
    assert set(backup.publish) - set(AGENT.publish) == set(roles["backup"]["publish"]) - {"task.>"}
    assert backup.subscribe == AGENT.subscribe
    for subject in (
        "$JS.API.STREAM.PURGE.AUDIT",
        "$JS.API.STREAM.UPDATE.AUDIT",
        "$JS.API.STREAM.CREATE.AUDIT",
        "$JS.API.STREAM.MSG.DELETE.AUDIT",
        "held.other.x",
        "state.other.x",
    ):
        assert not may_publish(backup, subject)


def test_a_notary_is_an_agent_that_reads_all_of_audit() -> None:
    notary = permissions_of(BrokerRole.NOTARY, INVENTORY, NAMES, OWN)
    assert set(AGENT.publish) < set(notary.publish)
    assert notary.subscribe == AGENT.subscribe
    for subject in (
        "$JS.API.CONSUMER.CREATE.AUDIT.read-1.audit.>",
        "$JS.API.CONSUMER.CREATE.AUDIT.read-1.audit.inventory",
        "$JS.API.CONSUMER.MSG.NEXT.AUDIT.read-1",
        "$JS.API.CONSUMER.DELETE.AUDIT.read-1",
    ):
        assert may_publish(notary, subject)
        assert not may_publish(AGENT, subject)
    for subject in (
        "audit.other",
        "state.other.notary",
        "$JS.API.STREAM.PURGE.AUDIT",
        "$JS.API.STREAM.UPDATE.AUDIT",
        "$JS.API.STREAM.DELETE.AUDIT",
        "$JS.API.STREAM.MSG.DELETE.AUDIT",
        "$JS.API.CONSUMER.CREATE.TASKS.read-1.task.>",
    ):
        assert not may_publish(notary, subject)


def test_a_control_process_is_a_notary_that_sees_how_much_waits() -> None:
    control = permissions_of(BrokerRole.CONTROL, INVENTORY, NAMES, OWN)
    notary = permissions_of(BrokerRole.NOTARY, INVENTORY, NAMES, OWN)
    more = set(control.publish) - set(notary.publish)
    assert more == {"$JS.API.INFO", "$JS.API.CONSUMER.LIST.TASKS", "$JS.API.CONSUMER.LIST.EVENTS"}
    roles = json.loads(library_files()["sealbus/lib/roles/data.json"])
    assert more <= set(roles["control"]["publish"])
    assert control.subscribe == notary.subscribe
