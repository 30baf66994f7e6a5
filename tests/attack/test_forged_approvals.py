"""An agent that says that somebody approved, and signs it: whoever has the log finds out, with either verifier.

The agent makes up decisions as it likes. It cannot make up what a person said at the edge, so it bends, borrows and reuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.approved_world import Approval, approval_world, judged, judged_together, leaf_of
from support.log_world import EPOCH, World
from vectors.issuing import EDGE, INVENTORY, PLANNER, SECOND

ASKED = {"type": "approval", "queue": "managers", "text": "Pay ACME", "until": 3600}
STRONG = {**ASKED, "acr": ["urn:x:2", "urn:x:3"]}
FRESH = {**ASKED, "max_age": 300}
FOLLOWED = {**ASKED, "follows": ["ledger.post"]}
PERSON = {"sub": "boss", "sid": "s-2", "cid": "desk", "acr": "urn:x:2"}
DAY = 86_400 * SECOND

TRUE: dict[str, dict[str, Any]] = {
    "nothing bent": {},
    "a login that is strong enough": {"asked": STRONG},
    "a login that is fresh enough": {"asked": FRESH, "login": 300 * SECOND},
    "a login without level and time, where none is asked for": {"login": None, "person": {**PERSON, "acr": None}},
    "actions that may follow": {"asked": FOLLOWED, "verdict_fields": {"grt": ["ledger.post"]}},
    "a denial that was said": {"said": {"verdict": "deny"}, "entry": {"verdict": "deny"}},
    "a task without a user": {"user": None},
    "the same name at another identity provider": {"user": {"sub": "boss", "idp": "https://other.example"}},
    "redelivered": {"denial": {"dlv": 3}, "verdict": {"dlv": 2}},
    "just in time": {"asked": {**ASKED, "until": 60}, "wait": 115 * SECOND},
    "other places redacted": {
        "allowed": {"red": ["/context/user/id", "/contexts", "/Context", "/context/approval", "/context/Approvals/0"]}
    },
}

FORGED: dict[str, dict[str, Any]] = {
    "a verdict of another person": {"entry": {"user": "chief"}},
    "a person of another identity provider": {"entry": {"idp": "https://other.example"}},
    "another session": {"entry": {"session": "s-3"}},
    "another client": {"entry": {"client": "web"}},
    "another login": {"entry": {"acr": "urn:x:3"}},
    "a later login": {"entry": {"auth_time": 1_764_000_001}},
    "another time": {"entry": {"time": "2026-11-27T10:00:00Z"}},
    "a record that is not there": {"entry": {"record": "00" * 32}},
    "another message": {"entry": {"message": "00" * 32}},
    "a verdict that was swapped": {"said": {"verdict": "deny"}},
    "a verdict that was swapped back": {"entry": {"verdict": "deny"}},
    "a verdict that was withdrawn": {"said": {"verdict": "withdraw"}},
    "a verdict about another decision": {"said": {"decision": "00" * 32}},
    "a verdict about another task": {"verdict_fields": {"re": bytes(32)}},
    "a verdict about no task": {"verdict_fields": {"re": None}},
    "a verdict without its body": {"verdict": {"bdy": None}},
    "a body that is none": {"body": b"{}"},
    "a body of another type": {"verdict_fields": {"typ": "application/json"}},
    "a body of nearly its type": {"verdict_fields": {"typ": "application/vnd.sealbus.approval.v1+jso"}},
    "a body of a type that looks alike": {"verdict_fields": {"typ": "application/vnd.sealbus.Approval.v1+json"}},
    "a verdict that was denied": {"verdict": {"alw": False, "cod": "denied"}},
    "a verdict that could not count": {
        "verdict": {"alw": False, "cod": "approval_self", **dict.fromkeys(("rsn", "rev", "pol", "eng", "mic"))}
    },
    "a verdict under another action": {"verdict": {"act": "inventory.update"}},
    "a verdict under nearly its action": {"verdict": {"act": "inventory._approve2"}},
    "a verdict under an action that looks alike": {"verdict": {"act": "Inventory._approve"}},
    "a verdict for another agent's action": {"verdict": {"act": "pricing._approve"}},
    "a verdict that came by no stream": {
        "verdict": {"str": None, "seq": None, "sto": None, "opn": 1_764_000_005 * SECOND, "dlv": 1}
    },
    "a verdict by a workload with somebody's context": {"sender": PLANNER, "person": {**PERSON, "wkl": PLANNER}},
    "a verdict by the edge in a workload's name": {"person": {**PERSON, "wkl": EDGE}},
    "a verdict by a client": {"person": {**PERSON, "typ": "client"}},
    "a verdict by an external workload": {"person": {**PERSON, "typ": "workload"}},
    "a verdict by nobody": {"person": None},
    "an answer to it on another subject": {"verdict_fields": {"to": "task.inventory.approve"}},
    "a cancel": {"verdict_fields": {"to": "control.inventory.cancel"}},
    "a verdict to another agent": {"verdict_fields": {"to": "control.pricing.approve"}},
    "a verdict that lets anything follow": {"verdict_fields": {"grt": None}},
    "a verdict that lets more follow": {"verdict_fields": {"grt": ["ledger.*"]}},
    "a verdict that lets less follow": {"asked": FOLLOWED},
    "their own approval": {"user": {"sub": "boss"}},
    "their own approval by another login": {"user": {"sub": "boss", "sid": "s-9", "cid": "web"}},
    "their own approval, with their name redacted": {
        "user": {"sub": "boss"},
        "denial": {"red": ["/context/user/id"]},
        "allowed": {"red": ["/context/user/id"]},
    },
    "a weak login": {"asked": STRONG, "person": {**PERSON, "acr": "urn:x:1"}},
    "a login of no level": {"asked": STRONG, "person": {**PERSON, "acr": None}},
    "an old login": {"asked": FRESH, "login": 300 * SECOND + 1},
    "a login of no time": {"asked": FRESH, "login": None},
    "too late": {"asked": {**ASKED, "until": 60}, "wait": 125 * SECOND},
    "no denial": {"denial": {"alw": True, "cod": None}},
    "another denial": {"denial": {"cod": "obligation_unknown"}},
    "a denial that asks for nothing": {"denial": {"obl": None}},
    "a denial that asks for something else": {"asked": {"type": "show_reasons"}},
    "a denial that asks for two": {"denial": {"obl": b'[{"type":"approval"},{"type":"approval"}]'}},
    "a denial that asks for what nobody can give": {"asked": {**ASKED, "count": 2}},
    "redacted approvals": {"allowed": {"red": ["/context/approvals"]}},
    "an approval with its user redacted": {"allowed": {"red": ["/context/user/id", "/context/approvals/0/user"]}},
    "approvals redacted among others": {"allowed": {"red": ["/a", "/context/approvals", "/b"]}},
    "the context redacted before others": {"allowed": {"red": ["/context", "/b"], "inp": b'{"v":1,"context":null}'}},
    "the whole context redacted": {"allowed": {"red": ["/context"], "inp": b'{"v":1,"context":null}'}},
    "approvals of another form": {"entries": [{}]},
    "an approval that says more": {"entry": {"more": ""}},
    "approvals that are none": {"document": b'{"context":{"approvals":{}}}'},
    "a document that nobody can read": {"document": b'{"context":{"approvals":["'},
    "a document of two contexts": {"document": b'{"context":{"approvals":[1]},"context":{"approvals":[]}}'},
}


@pytest.mark.parametrize("name", TRUE)
def test_what_was_said_is_found_by_both(name: str) -> None:
    world = approval_world()
    Approval(world=world, **TRUE[name]).put()
    assert judged(world) == []


@pytest.mark.parametrize("name", FORGED)
def test_what_was_not_said_like_that_is_told_by_both(name: str) -> None:
    world = approval_world()
    Approval(world=world, **FORGED[name]).put()
    assert judged(world) == [(f"#{world.sequence}", "bad_approval")]


@pytest.mark.parametrize("order", ["DAR", "DA R", "D AR"])
def test_several_records_of_one_message_stand_in_its_order(order: str) -> None:
    world = approval_world()
    Approval(world=world).put(order)
    assert judged(world) == []


@pytest.mark.parametrize("order", ["R D A", "D R A", "A D R", "A R D", "D RA", "RDA", "ADR", "AD R"])
def test_nobody_approves_after_the_fact_or_before_they_were_asked(order: str) -> None:
    world = approval_world()
    Approval(world=world).put(order)
    place = 2 + next(at for at, group in enumerate(order.split()) if "R" in group)
    assert judged(world) == [(f"#{place}", "bad_approval")]


def borrowed(world: World) -> None:
    """What somebody said about one task stands for another."""
    first, second = Approval(world=world), Approval(world=world)
    first.put("D A")
    second.put("D")
    second.entries = [first.one()]
    second.put("R")


def borrowed_denial(world: World) -> None:
    """Somebody approved another task by the hash of this one's denial."""
    first, second = Approval(world=world), Approval(world=world)
    first.put("D")
    second.put("D")
    second.said = {"decision": leaf_of(first.made["D"]).hex()}
    second.put("A R")


def of_the_denial_of_a_copy(world: World) -> None:
    """The denial is about a message with the same body and another header."""
    first = Approval(world=world)
    first.put("D")
    second = Approval(world=world, said={"decision": leaf_of(first.made["D"]).hex()})
    second.put("A R")


def one_person_twice(world: World) -> None:
    first = Approval(world=world)
    first.put("D A")
    again = first.beside(person={**PERSON, "sid": "s-3", "cid": "web"})
    again.put("A")
    first.entries = [first.one(), again.one()]
    first.put("R")


def one_record_twice(world: World) -> None:
    first = Approval(world=world)
    first.put("D A")
    first.entries = [first.one(), first.one()]
    first.put("R")


def second_of_two_made_up(world: World) -> None:
    first = Approval(world=world)
    first.put("D A")
    first.entries = [first.one(), {**first.one(), "user": "chief", "record": "11" * 32}]
    first.put("R")


def seventeen(world: World) -> None:
    first = Approval(world=world)
    first.put("D")
    others = [first.beside(person={**PERSON, "sub": f"boss-{number}"}) for number in range(17)]
    for one in others:
        one.put("A")
    first.entries = [one.one() for one in others]
    first.put("R")


def by_another_agent(world: World) -> None:
    """Another agent records that it allowed what was approved at the one that it was for."""
    first = Approval(world=world, task_fields={"aud": None, "t": "event", "end": None, "to": "event.edge.update"})
    first.user = None
    first.put("D A")
    first.recorder = PLANNER
    first.put("R")


def a_month_late(world: World) -> None:
    """In time by the denial, which was recorded late; and no message waits that long."""
    first = Approval(world=world, asked={**ASKED, "until": 30 * 86_400})
    made = world.time
    first.make("D")
    world.time += 3600 * SECOND
    first.put("D")
    epoch = 30 * DAY // EPOCH
    world.record_bundle("k0", f"k{epoch}")
    world.epoch, world.time = epoch, made + 30 * DAY
    world.record_bundle(f"k{epoch}")
    world.time = made + 30 * DAY + 60 * SECOND
    first.put("A R")


LOGS: list[Callable[[World], None]] = [
    borrowed, borrowed_denial, of_the_denial_of_a_copy, one_person_twice, one_record_twice, second_of_two_made_up, seventeen,
    by_another_agent, a_month_late,
]  # fmt: skip


@pytest.mark.parametrize("made", LOGS, ids=lambda one: one.__name__)
def test_what_was_said_elsewhere_does_not_count_twice(made: Callable[[World], None]) -> None:
    world = approval_world()
    made(world)
    assert judged(world) == [(f"#{world.sequence}", "bad_approval")]


def test_several_people_and_a_record_that_is_repeated() -> None:
    world = approval_world()
    first = Approval(world=world)
    first.put("D A")
    other = first.beside(person={**PERSON, "sub": "chief"})
    other.put("A")
    first.entries = [first.one(), other.one()]
    first.put("R")
    for frame in range(2, 6):
        world.repeat(frame)
    assert judged(world) == []


def test_a_record_that_is_repeated_counts_where_it_stood_first() -> None:
    world = approval_world()
    Approval(world=world).put("A D R")
    for frame in range(2, 5):
        world.repeat(frame)
    assert judged(world) == [("#4", "bad_approval"), ("#7", "bad_approval")]


def test_what_an_approval_itself_says_was_approved_before_is_not_asked() -> None:
    world = approval_world()
    said = b'{"context":{"approvals":[{"made":"up"}]}}'
    Approval(world=world, verdict={"inp": said}).put()
    assert judged(world) == []
    Approval(world=world, verdict={"inp": said, "red": ["/context/approvals/0"]}).put()
    assert judged(world) == [(f"#{world.sequence - 1}", "bad_approval")]


def test_a_denial_may_say_what_it_likes_about_approvals() -> None:
    world = approval_world()
    Approval(world=world, denial={"inp": b'{"context":{"approvals":[1]}}', "red": ["/context/approvals"]}).put()
    assert judged(world) == []


def test_who_records_what_was_for_another_is_told_already() -> None:
    world = approval_world()
    Approval(world=world, recorder=PLANNER).put()
    assert {code for _, code in judged(world)} == {"wrong_audience"}
    assert INVENTORY not in (PLANNER, EDGE)


@pytest.mark.parametrize(("before", "after"), [("D", "A R"), ("D A", "R"), ("D", "AR"), ("DA", "R")])
def test_what_was_said_before_a_move_is_found_in_the_other_log(before: str, after: str) -> None:
    former, present = approval_world(), approval_world()
    Approval(world=former).put_over(present, before, after)
    assert judged(former) == []
    assert judged(present) == [(f"#{present.sequence}", "bad_approval")]
    assert judged(present, beside=former) == []
    # Another log beside it shows nothing.
    assert judged(present, beside=approval_world()) == [(f"#{present.sequence}", "bad_approval")]


def test_all_that_was_said_before_a_move_is_found_in_the_other_log() -> None:
    former, present = approval_world(), approval_world()
    approvals = [Approval(world=former) for _ in range(3)]
    for approval in approvals:
        approval.put("D A")
    present.time = former.time
    for approval in approvals:
        approval.world = present
        approval.put("R")
    assert judged(present, beside=former) == []


@pytest.mark.parametrize(("before", "after"), [("D", "A R"), ("D A", "R")])
@pytest.mark.parametrize("name", FORGED)
def test_what_was_not_said_like_that_before_a_move_is_told(name: str, before: str, after: str) -> None:
    former, present = approval_world(), approval_world()
    Approval(world=former, **FORGED[name]).put_over(present, before, after)
    assert judged(present, beside=former) == [(f"#{present.sequence}", "bad_approval")]


def test_a_verdict_before_its_denial_is_none_in_another_log_either() -> None:
    former, present = approval_world(), approval_world()
    Approval(world=former).put_over(present, "A D", "R")
    assert judged(present, beside=former) == [(f"#{present.sequence}", "bad_approval")]


def test_a_denial_in_this_log_is_none_for_a_verdict_in_another() -> None:
    former, present = approval_world(), approval_world()
    approval = Approval(world=former)
    approval.make("D")
    approval.put_over(present, "A", "D R")
    assert judged(present, beside=former) == [(f"#{present.sequence}", "bad_approval")]


def test_agents_that_were_moved_both_ways_are_verified_as_one_set() -> None:
    east, west, third = approval_world(1), approval_world(2), approval_world(3)
    Approval(world=east).put_over(west, "D A", "R")
    Approval(world=west).put_over(east, "D", "A R")
    Approval(world=third).put_over(east, "D A", "R")
    assert judged_together(east, west, third) == [[], [], []]
    for order in ((third, west, east), (west, third, east)):
        assert judged_together(*order) == [[], [], []]
    # No two of them are enough.
    assert judged_together(west, east) == [[], [(f"#{east.sequence}", "bad_approval")]]
    assert [bool(found) for found in judged_together(east, third)] == [True, False]


@pytest.mark.parametrize("name", FORGED)
def test_what_was_not_said_like_that_is_told_in_a_set(name: str) -> None:
    former, present, other = approval_world(1), approval_world(2), approval_world(3)
    Approval(world=other).put()
    Approval(world=former, **FORGED[name]).put_over(present, "D A", "R")
    assert judged_together(other, former, present) == [[], [], [(f"#{present.sequence}", "bad_approval")]]


def test_a_verdict_that_was_stored_in_both_logs_counts_in_its_own() -> None:
    """A spool sends a record again that the former cell has stored without saying so."""
    former, present = approval_world(), approval_world()
    approval = Approval(world=former)
    approval.put("D A R")
    approval.put_over(present, "", "A")
    assert judged_together(present, former) == [[], []]
