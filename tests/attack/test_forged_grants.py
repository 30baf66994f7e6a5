"""An edge that acts for users who are away and have not granted it: whoever has the log finds out, with either verifier."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from support.approved_world import approval_world, judged, judged_together
from support.granted_world import DAY, StandingGrant, named
from vectors.issuing import EDGE, INVENTORY, SECOND

TOKEN = "id-" + sha256(EDGE.encode()).hexdigest()[:32]

TRUE: dict[str, dict[str, Any]] = {
    "nothing bent": {},
    "a grant for others to follow": {"do": {"grants": ["ledger.post"]}, "task_fields": {"grt": ["ledger.post"]}},
    "a body that is no text": {"do": {"text": ..., "base64": "/w=="}, "task_body": b"\xff"},
    "a scope that looks like ours": {
        "user": {"scp": ["inventory", "sealbus:schedule", "Sealbus:x"]}, "away": {"scp": ["inventory", "Sealbus:x"]}
    },
    "a denial of what was granted": {"done": {"alw": False, "cod": "denied"}},
    "a session that looks alike": {"user": {"sid": "Standing-0"}, "away": {"sid": "Standing-0"}},
    "a user of a partner": {
        "user": {"sub": "u-1@p.example", "dom": "p.example"}, "away": {"sub": "u-1@p.example", "dom": "p.example"},
        "body": {"name": named("u-1@p.example")},
    },
}  # fmt: skip

FORGED: dict[str, dict[str, Any]] = {
    "another user": {"away": {"sub": "u-2"}},
    "a user of another identity provider": {"away": {"idp": "https://other.example"}},
    "another client": {"away": {"cid": "desk"}},
    "another tenant": {"away": {"ten": "acme"}},
    "a stronger login": {"away": {"acr": "urn:x:3"}},
    "other methods": {"away": {"amr": ["hwk"]}},
    "a later login": {"away": {"aut": 1_764_000_001 * SECOND}},
    "other claims": {"away": {"clm": {"level": 4, "staff": True}}},
    "a claim of another type": {"away": {"clm": {"level": 3, "staff": 1}}},
    "more scope": {"away": {"scp": ["inventory", "payments"]}},
    "the scope to grant": {"away": {"scp": ["inventory", "sealbus:schedule", "sealbus:approve"]}},
    "facts of a request": {"away": {"req": {"ip": "192.0.2.1"}}},
    "the session of another grant": {"away": {"sid": "standing-" + "0" * 32}},
    "a session that names less": {"away": {"sid": "standing-"}},
    "another action": {"task_fields": {"to": "task.inventory.update"}},
    "an action that looks alike": {"task_fields": {"to": "task.inventory.COUNT"}},
    "a partition": {"task_fields": {"to": "task.inventory.count.p"}},
    "another body": {"task_body": b'{"item_id":"8"}'},
    "another type of body": {"task_fields": {"typ": "text/plain"}},
    "more may follow": {"task_fields": {"grt": ["ledger.post"]}},
    "anything may follow": {"task_fields": {"grt": None}},
    "no tick": {"task_fields": {"ext": None}},
    "a tick that is no time": {"task_fields": {"ext": {"_tick": "now"}}},
    "about no grant": {"task_fields": {"re": None}},
    "about another message": {"task_fields": {"re": bytes(32)}},
    "a tick that is still to come": {"task_fields": {"ext": {"_tick": 1_766_000_000 * SECOND}}},
    "a grant that was denied": {"said": {"alw": False, "cod": "denied"}},
    "a grant under another action": {"said": {"act": "inventory.count"}},
    "a grant without its body": {"said": {"bdy": None}},
    "a grant that came by no stream": {
        "said": {"str": None, "seq": None, "sto": None, "opn": 1_764_000_005 * SECOND, "dlv": 1}
    },
    "a grant by a client": {"user": {"typ": "client"}},
    "a grant by one who was away": {"user": {"sid": "standing-" + "0" * 32}},
    "a grant in a workload's name": {"user": {"wkl": EDGE}},
    "a grant without the scope": {"user": {"scp": ["inventory"]}},
    "a grant without a login": {"user": {"aut": None}, "away": {"aut": None}},
    "a grant of another type": {"said_fields": {"typ": "application/json"}},
    "a grant of nearly its type": {"said_fields": {"typ": "application/vnd.sealbus.schedule.v1+jso"}},
    "a grant of a longer type": {"said_fields": {"typ": "application/vnd.sealbus.schedule.v1+json2"}},
    "a grant of a type that looks alike": {"said_fields": {"typ": "application/vnd.sealbus.Schedule.v1+json"}},
    "a grant with nearly the scope": {"user": {"scp": ["inventory", "sealbus:schedul"]}},
    "a grant with more than the scope": {"user": {"scp": ["inventory", "sealbus:schedules"]}},
    "a grant with a scope that looks alike": {
        "user": {"scp": ["inventory", "Sealbus:schedule"]}, "away": {"scp": ["inventory", "Sealbus:schedule"]}
    },
    "a grant that is nearly on": {"body": {"state": "o"}},
    "a grant that is more than on": {"body": {"state": "once"}},
    "a grant that is On": {"body": {"state": "On"}},
    "a grant of a name that looks alike": {"body": {"name": named("u-1").upper()}},
    "a grant at nearly the place": {"said_fields": {"to": f"control.{TOKEN}.schedul"}},
    "a grant at a place that looks alike": {"said_fields": {"to": f"control.{TOKEN}.Schedule"}},
    "a grant under nearly its action": {"said": {"act": f"{TOKEN}._schedul"}},
    "a grant under more than its action": {"said": {"act": f"{TOKEN}._schedule2"}},
    "a grant under an action that looks alike": {"said": {"act": f"{TOKEN}._Schedule"}},
    "a body of nearly its type": {"task_fields": {"typ": "application/jso"}},
    "a body of more than its type": {"task_fields": {"typ": "application/json2"}},
    "a body of a type that looks alike": {"task_fields": {"typ": "application/JSON"}},
    "a grant elsewhere": {"said_fields": {"to": "control.inventory.schedule"}},
    "a grant for another agent": {"recorder": INVENTORY},
    "a grant of 91 days": {"body": {"until": 1_764_000_000 * SECOND + 400 * DAY}},
    "a grant of every minute but a second": {"body": {"when": {"every": 59, "from": 0}}},
    "a grant without an end": {"body": {"until": None}},
    "a grant without what may follow": {"do": {"grants": ...}, "task_fields": {"grt": None}},
    "a grant under another's name": {"body": {"name": named("u-2")}},
    "a grant that is paused": {"body": {"state": "paused"}},
    "a grant with two bodies": {"do": {"base64": ""}},
    "a body in another spelling of base64": {"do": {"text": ..., "base64": "/x=="}, "task_body": b"\xff"},
    "a grant of a partition": {"do": {"partition": "p"}},
    "a grant of another version": {"body": {"v": 2}},
}  # fmt: skip


def findings(order: str, **changes: Any) -> list[tuple[str, str]]:
    world = approval_world()
    StandingGrant(world=world, **changes).put(order)
    return judged(world)


@pytest.mark.parametrize("name", TRUE)
def test_what_was_granted_is_no_finding(name: str) -> None:
    assert findings("S T C", **TRUE[name]) == []
    assert findings("S T T C S", **TRUE[name]) == []


@pytest.mark.parametrize("name", FORGED)
def test_what_was_not_granted_is_found(name: str) -> None:
    found = findings("S T", **FORGED[name])
    assert {code for _, code in found} >= {"bad_grant"}, found


def test_what_followed_is_found_too() -> None:
    assert [code for _, code in findings("S T C", task_body=b"{}")] == ["bad_grant"] * 2
    assert [code for _, code in findings("S C", task_body=b"{}")] == ["bad_grant"]


def test_what_was_granted_in_another_cell_is_found_in_its_log() -> None:
    """The edge is in another cell than the agent: each records in its own log."""
    edges, agents = approval_world(), approval_world()
    grants = [StandingGrant(world=edges) for _ in range(3)]
    for grant in grants:
        grant.put("S")
    agents.time = edges.time
    for grant in grants:
        grant.world = agents
        grant.put("T")
    assert {code for _, code in judged(agents)} == {"bad_grant"}
    assert judged(agents, beside=edges) == []


@pytest.mark.parametrize("name", FORGED)
def test_what_was_not_granted_is_found_over_two_logs(name: str) -> None:
    edges, agents = approval_world(), approval_world()
    grant = StandingGrant(world=edges, **FORGED[name])
    grant.put("S")
    agents.time, grant.world = edges.time, agents
    grant.put("T")
    assert {code for _, code in judged(agents, beside=edges)} >= {"bad_grant"}


def test_edges_in_both_cells_are_verified_as_one_set() -> None:
    east, west = approval_world(1), approval_world(2)
    for edges, agents in ((east, west), (west, east)):
        grant = StandingGrant(world=edges)
        grant.put("S")
        agents.time, grant.world = max(edges.time, agents.time), agents
        grant.put("T")
    assert judged_together(east, west, approval_world()) == [[], [], []]
    assert judged(east, beside=west) == []
    assert [code for found in judged_together(east, approval_world()) for _, code in found] == ["bad_grant"]


def test_a_grant_stands_before_what_is_done() -> None:
    assert [code for _, code in findings("T S")] == ["bad_grant"]
    assert [code for _, code in findings("T")] == ["bad_grant"]
    assert [code for _, code in findings("C S T")] == ["bad_grant"]


@pytest.mark.parametrize(("seconds", "codes"), [(115, []), (125, ["bad_grant"])])
def test_a_grant_ends_when_its_user_ends_it(seconds: int, codes: list[str]) -> None:
    assert [code for _, code in findings("S E T", wait=seconds * SECOND)] == codes
    # Whatever is repeated then, also the grant.
    assert [code for _, code in findings("S E E S T", wait=seconds * SECOND)] == codes


@pytest.mark.parametrize(
    "changes",
    [
        {"ends": {"name": named("u-1", name="other")}},
        {"ends": {"name": named("u-2")}},
        {"ends": {"state": "paused"}},
        {"ends": {"state": "remove"}},
        {"ends": {"state": "removed2"}},
        {"ends": {"state": "Removed"}},
        {"ends": {"more": 1}},
        {"ended": {"alw": False, "cod": "denied"}},
    ],
)
def test_what_ends_another_ends_nothing_here(changes: dict[str, Any]) -> None:
    assert findings("S E T", wait=600 * SECOND, **changes) == []


def test_a_grant_ends_with_the_next_of_its_name() -> None:
    world = approval_world()
    first, second = StandingGrant(world=world, wait=600 * SECOND), StandingGrant(world=world)
    first.put("S")
    second.put("S T")
    assert judged(world) == []
    first.put("T")
    assert [code for _, code in judged(world)] == ["bad_grant"]
    # The one that was stored first does not end the other, even where it is recorded later.
    world = approval_world()
    older, newer = StandingGrant(world=world), StandingGrant(world=world, wait=600 * SECOND)
    older.said = {"sto": world.time - SECOND}
    newer.put("S")
    older.put("S")
    newer.put("T")
    assert judged(world) == []
    older.put("T")
    assert [code for _, code in judged(world)] == ["bad_grant"]


@pytest.mark.parametrize(("tick", "sent", "codes"), [
    (-1, 0, []),
    (0, 0, ["bad_grant"]),
    (-1, 2 * DAY - 1, []),
    (-1, 2 * DAY, ["bad_grant"]),
])  # fmt: skip
def test_a_grant_is_over_at_its_end(tick: int, sent: int, codes: list[str]) -> None:
    """`tick` and `sent` are microseconds after the end."""
    world = approval_world()
    until = world.time - sent
    StandingGrant(
        world=world, body={"until": until}, task_fields={"ext": {"_tick": until + tick}, "iat": world.time}
    ).put("S T")
    assert [code for _, code in judged(world)] == codes


def test_a_session_that_looks_alike_is_of_no_grant() -> None:
    world = approval_world()
    grant = StandingGrant(world=world)
    grant.away = {"sid": "standing-" + grant.grant().digest()[:16].hex().upper()}
    grant.put("S T")
    assert [code for _, code in judged(world)] == ["bad_grant"]


@pytest.mark.parametrize(("later", "codes"), [(0, []), (1, ["bad_grant"])])
def test_bounds_of_time(later: int, codes: list[str]) -> None:
    """Each is met exactly, or missed by a microsecond."""
    world = approval_world()
    until = world.time + 90 * DAY + 5 * SECOND + later
    StandingGrant(world=world, body={"until": until}).put("S T")
    assert [code for _, code in judged(world)] == codes
    world = approval_world()
    early = {"ext": {"_tick": world.time + 5 * SECOND + later}, "iat": world.time}
    StandingGrant(world=world, task_fields=early).put("S T")
    assert [code for _, code in judged(world)] == codes
    world = approval_world()
    grant = StandingGrant(world=world)
    grant.put("S E")
    world.time = world.frames[-1].stored + 120 * SECOND + later
    grant.put("T")
    assert [code for _, code in judged(world)] == codes


def test_of_two_that_were_stored_at_once_the_one_recorded_last_stands() -> None:
    world = approval_world()
    stored = {"sto": world.time}
    first, second = StandingGrant(world=world, said=stored, wait=600 * SECOND), StandingGrant(world=world, said=stored)
    first.put("S")
    second.put("S T")
    assert judged(world) == []
    first.put("T")
    second.put("C")
    assert [code for _, code in judged(world)] == ["bad_grant"]


def test_a_grant_may_be_as_long_as_a_record_holds() -> None:
    world = approval_world()
    rest = 65_536 - len(StandingGrant(world=world, do={"text": ""}).grant().body)
    grant = StandingGrant(world=world, do={"text": "x" * rest}, task_body=b"x" * rest)
    assert len(grant.grant().body) == 65_536
    grant.put("S T")
    assert judged(world) == []


@pytest.mark.parametrize("grants", [[1, "a.b"], ["a.b", 1]])
def test_what_is_no_grant_ends_none(grants: list[object]) -> None:
    world = approval_world()
    first = StandingGrant(world=world, wait=600 * SECOND)
    first.put("S")
    StandingGrant(world=world, do={"grants": grants}).put("S")
    first.put("T")
    assert judged(world) == []
