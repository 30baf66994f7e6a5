"""What one message shows of standing grants: what a user granted, and what was done for one who was away."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from support.approved_world import approval_world
from support.granted_world import SCHEDULE, StandingGrant
from support.kept_log import root_of
from vectors.issuing import EDGE, INVENTORY, SECOND

from sealbus.envelopes.export.entries import EntryReader
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.standing import GrantFact, GrantStatement, GrantUsed, StandingUser
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.log.entries import EntryKind

USER = StandingUser(
    idp="https://idp.example",
    user="u-1",
    client="web",
    tenant=None,
    domain=None,
    acr="urn:x:2",
    methods=None,
    authenticated=None,
    claims=(("level", "3"), ("staff", "True")),
)


def facts(grant: StandingGrant, order: str) -> list[GrantFact]:
    """Return what the messages of a grant say, read from their export."""
    grant.put(order)
    root, frames = root_of(grant.world), [Frame(EntryKind(one.kind), *one[1:]) for one in grant.world.frames]
    trust = TrustReader(root)
    for index, frame in enumerate(frames):
        trust.take_frame(frame, index)
    reader = EntryReader(root, trust.archive)
    for frame in frames:
        reader.read(frame)
    assert reader.findings == []
    assert pickle.loads(pickle.dumps(reader.grants)) == reader.grants  # noqa: S301  as between processes
    return reader.grants


def test_the_two_of_a_grant_and_what_follows() -> None:
    grant = StandingGrant(world=approval_world())
    said, used, followed = facts(grant, "S T C")
    user = USER._replace(authenticated=grant.start - 10 * SECOND)
    assert isinstance(said, GrantStatement)
    assert isinstance(used, GrantUsed)
    message, task = grant.grant(), grant.tick()
    assert said == GrantStatement(
        edge=EDGE,
        message=message.digest(),
        user=user,
        scope=("inventory", "sealbus:schedule", "sealbus:approve"),
        typ=SCHEDULE,
        body=message.body,
        made=grant.start,
        stored=grant.start,
        logged=said.logged,
    )
    assert (used.fault, used.edge, used.grant) == ("", EDGE, message.digest())
    assert (used.user, used.scope, used.session) == (user, ("inventory",), "standing-" + message.digest()[:16].hex())
    assert (used.to, used.grants, used.tick) == ("task.inventory.count", (), used.made)
    assert used.body_digest == task.entries()["dig"]
    # What followed rests on the same: the root of its chain.
    assert isinstance(followed, GrantUsed)
    assert followed == used._replace(sequence=followed.sequence)


@pytest.mark.parametrize(
    "changes",
    [
        {"said": {"alw": False, "cod": "denied"}},
        {"said": {"act": "inventory.count"}},
        {"said": {"act": "inventory._schedule"}},
        {"said": {"bdy": None}},
        {"said": {"str": None, "seq": None, "sto": None, "opn": 1_764_000_005 * SECOND, "dlv": 1}},
        {"said_fields": {"to": "control.inventory.schedule"}},
        # Another identity that is nearly the edge, or is for it what an agent is.
        *({"recorder": one} for one in (EDGE + "/more", EDGE[:-1], EDGE.replace("/edge", "/Edge"), INVENTORY)),
        {"user": {"wkl": EDGE}},
        {"user": {"typ": "client"}},
    ],
)
def test_what_is_no_grant(changes: dict[str, Any]) -> None:
    assert facts(StandingGrant(world=approval_world(), **changes), "S") == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"task_fields": {"ext": None}}, "it began with no tick"),
        ({"task_fields": {"ext": {"_tick": "now"}}}, "it began with no tick"),
        ({"task_fields": {"re": None}}, "it began with no tick"),
        ({"away": {"req": {"ip": "192.0.2.1"}}}, "its context is not of an absent user"),
    ],
)
def test_what_rests_on_nothing(changes: dict[str, Any], fault: str) -> None:
    [used] = facts(StandingGrant(world=approval_world(), **changes), "T")
    assert isinstance(used, GrantUsed)
    assert used == GrantUsed(used.sequence, fault)


def test_a_call_rests_on_no_grant() -> None:
    world = approval_world()
    end = world.time + 60 * SECOND
    call = {"t": "call", "to": "call.inventory.count", "rpl": "_INBOX.edge.x", "exp": end, "end": end}
    [used] = facts(StandingGrant(world=world, task_fields=call), "T")
    assert isinstance(used, GrantUsed)
    assert used == GrantUsed(used.sequence, "it began with no tick")


def test_a_session_that_looks_alike_is_of_one_who_is_there() -> None:
    grant = StandingGrant(world=approval_world(), user={"sid": "Standing-0"}, away={"sid": "Standing-0"})
    [said] = facts(grant, "S T")
    assert isinstance(said, GrantStatement)


def test_a_user_of_a_partner() -> None:
    [said] = facts(StandingGrant(world=approval_world(), user={"sub": "u@p.example", "dom": "p.example"}), "S")
    assert isinstance(said, GrantStatement)
    assert (said.user.user, said.user.domain) == ("u@p.example", "p.example")
