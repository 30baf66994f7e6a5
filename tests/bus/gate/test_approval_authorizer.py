"""The floors of an approval, each by itself and at its bounds; whatever the policy says, none of them is lifted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.acceptance import EDGE, EDGE_ID
from support.envelopes import MINUTE, NOW, agent
from support.near import near, nearly, shown
from support.parked import UNTIL, approval, case, parked_task, value_of, verdict

from sealbus.bus.gate.approval_authorizer import (
    TAKEN_UP,
    ApprovalCase,
    ApprovalRefused,
    ask_about,
    check_login,
    floors,
    verdict_of,
)
from sealbus.bus.sending.approval import Verdict
from sealbus.bus.work.approvals.parked_tasks import ParkedState
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code, PolicyUnavailable, ResourceUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import CoreArrival
from sealbus.envelopes.message.user_context import SubjectType
from sealbus.envelopes.trust.spiffe_id import SpiffeId

SOON = NOW + 2 * SECOND


def refused(code: Code, one: ApprovalCase, message: VerifiedMessage, *, now: int = SOON) -> None:
    with pytest.raises(ApprovalRefused) as raised:
        floors(one, message, now=now)
    assert raised.value.code is code


def test_a_person_at_the_edge_may_approve_what_waits() -> None:
    parked = parked_task()
    message = approval(parked)
    assert floors(case(parked), message, now=SOON) == message.context
    assert floors(case(parked), message, now=UNTIL - 1).sub == "boss"


@pytest.mark.parametrize(
    "changed",
    [
        lambda message: message._replace(context=None),
        lambda message: message._replace(header=replaced(message, par=bytes(32))),
        lambda message: message._replace(header=replaced(message, iss=agent("planner"))),
        lambda message: message._replace(header=replaced(message, iss=agent("edgex"))),
        lambda message: message._replace(context=replace(message.context, wkl=agent("planner"))),
        lambda message: message._replace(context=replace(message.context, typ=SubjectType.CLIENT)),
        lambda message: message._replace(context=replace(message.context, typ=SubjectType.WORKLOAD)),
        lambda message: message._replace(header=replaced(message, grt=None)),
        lambda message: message._replace(header=replaced(message, grt=("inventory.update",))),
    ],
)
def test_what_is_by_no_person_at_the_edge_is_foreign(changed: Callable[[Any], VerifiedMessage]) -> None:
    parked = parked_task()
    refused(Code.APPROVAL_FOREIGN, case(parked), changed(approval(parked)))


@pytest.mark.parametrize("edge", near(EDGE_ID), ids=shown)
def test_the_edge_where_the_person_is_is_no_other(edge: SpiffeId) -> None:
    parked = parked_task()
    message = approval(parked)
    refused(Code.APPROVAL_FOREIGN, case(parked), message._replace(header=replaced(message, iss=edge)))
    assert message.context is not None
    refused(Code.APPROVAL_FOREIGN, case(parked), message._replace(context=replace(message.context, iss=edge)))


def replaced(message: VerifiedMessage, **fields: Any) -> Any:
    return message.header._replace(**fields)


def test_what_follows_is_what_the_obligation_says() -> None:
    parked = parked_task(asked={"follows": ["mail.send"]})
    floors(case(parked), approval(parked, grt=("mail.send",)), now=SOON)
    for grants in ((), ("mail.send", "mail.read"), ("mail.sen",), ("mail.sendx",)):
        refused(Code.APPROVAL_FOREIGN, case(parked), approval(parked, grt=grants))


def test_it_is_about_exactly_this_decision() -> None:
    parked = parked_task()
    for decision in (bytes(32), parked.leaf[:-1] + bytes([parked.leaf[-1] ^ 1])):
        refused(Code.APPROVAL_FOREIGN, case(parked, decision=decision), approval(parked))


def test_what_was_stored_too_late_or_is_taken_up_too_late_is_closed() -> None:
    parked = parked_task(until=NOW + MINUTE)
    floors(case(parked), approval(parked, stored=NOW + MINUTE - 1), now=NOW + MINUTE - 1)
    refused(Code.APPROVAL_CLOSED, case(parked), approval(parked, stored=NOW + MINUTE), now=NOW + MINUTE - 1)
    refused(Code.APPROVAL_CLOSED, case(parked), approval(parked), now=NOW + MINUTE)
    # What has no time of a broker is judged by ours.
    core = approval(parked)._replace(arrival=CoreArrival(subject="", started=NOW, audit_created=NOW))
    refused(Code.APPROVAL_CLOSED, case(parked), core, now=NOW + MINUTE)
    floors(case(parked), core, now=NOW + MINUTE - 1)


def test_what_it_has_taken_up_it_may_try_again_after_the_end() -> None:
    parked = parked_task(until=NOW + MINUTE)
    message = approval(parked)
    running = replace(parked, state=ParkedState.RUNNING, run=message.header.digest, turn=1)
    floors(case(running), message, now=NOW + 2 * MINUTE)
    refused(Code.APPROVAL_CLOSED, case(running), approval(parked, stored=NOW + MINUTE), now=NOW + MINUTE)
    waiting = replace(running, state=ParkedState.WAITING)
    refused(Code.APPROVAL_CLOSED, case(waiting), message, now=NOW + 2 * MINUTE)


def test_what_has_ended_or_is_under_way_is_closed() -> None:
    parked = parked_task()
    message = approval(parked)
    refused(Code.APPROVAL_CLOSED, case(replace(parked, state=ParkedState.ENDED)), message)
    ended = replace(parked, state=ParkedState.ENDED, run=message.header.digest)
    refused(Code.APPROVAL_CLOSED, case(ended), message)
    running = replace(parked, state=ParkedState.RUNNING, run=bytes(32), value=value_of(parked, stored=NOW))
    with pytest.raises(ResourceUnavailable):
        floors(case(running), message, now=NOW + TAKEN_UP - 1)
    refused(Code.APPROVAL_CLOSED, case(running), message, now=NOW + TAKEN_UP)


def test_nobody_approves_what_they_asked_for() -> None:
    parked = parked_task()
    assert parked.requester == ("https://idp.example", "u-1001")
    refused(Code.APPROVAL_SELF, case(parked), approval(parked, sub="u-1001", sid="another", cid="another"))
    # The same name of another provider is another person; who is shown both is the policy.
    floors(case(parked), approval(parked, sub="u-1001", idp="https://idp.exampl"), now=SOON)
    floors(case(parked), approval(parked, sub="u-100"), now=SOON)


def test_one_person_counts_once_and_takes_back_what_is_there() -> None:
    parked = parked_task(verdicts=(verdict("boss", message=b"m" * 32), verdict("second")))
    message = approval(parked, sid="another")
    refused(Code.APPROVAL_REPEATED, case(parked), message)
    floors(case(parked, Verdict.DENY), message, now=SOON)
    floors(case(parked, Verdict.WITHDRAW), message, now=SOON)
    same = replace(parked, verdicts=(verdict("boss", message=message.header.digest),))
    floors(case(same), message, now=SOON)
    other_message = replace(parked, verdicts=(verdict("boss", message=nearly(message.header.digest)),))
    refused(Code.APPROVAL_REPEATED, case(other_message), message)
    refused(Code.APPROVAL_CLOSED, case(parked, Verdict.WITHDRAW), approval(parked, sub="third"))
    gone = replace(parked, verdicts=(verdict("boss", verdict=Verdict.WITHDRAW, message=b"m" * 32),))
    refused(Code.APPROVAL_CLOSED, case(gone, Verdict.WITHDRAW), message)
    floors(case(gone), message, now=SOON)
    own = replace(parked, verdicts=(verdict("boss", verdict=Verdict.WITHDRAW, message=message.header.digest),))
    floors(case(own, Verdict.WITHDRAW), message, now=SOON)
    other = replace(parked, verdicts=(verdict("boss", idp="https://other.example"),))
    floors(case(other), message, now=SOON)
    refused(Code.APPROVAL_CLOSED, case(other, Verdict.WITHDRAW), message)


@pytest.mark.parametrize("later", [Verdict.DENY, Verdict.WITHDRAW])
def test_what_was_said_before_does_not_come_back(later: Verdict) -> None:
    parked = parked_task()
    message = approval(parked, stored=NOW + SECOND)
    for time, well in ((NOW, True), (NOW + SECOND, True), (NOW + SECOND + 1, False)):
        said = verdict("boss", verdict=later, message=b"m" * 32, time=time)
        one = case(replace(parked, verdicts=(verdict("second", time=NOW + MINUTE), said)))
        if well:
            floors(one, message, now=SOON)
        else:
            refused(Code.APPROVAL_REPEATED, one, message)


def test_sixteen_people_may_say_something() -> None:
    parked = parked_task(verdicts=tuple([verdict(f"u{number}") for number in range(15)]))
    floors(case(parked), approval(parked), now=SOON)
    full = replace(parked, verdicts=(*parked.verdicts, verdict("u15")))
    refused(Code.APPROVAL_CLOSED, case(full), approval(parked))
    floors(case(full, Verdict.DENY), approval(parked, sub="u15"), now=SOON)


@pytest.mark.parametrize(
    ("asked", "login", "well"),
    [
        ({}, {"aut": None}, True),
        ({"acr": ["gold", "iron"]}, {"acr": "gold"}, True),
        ({"acr": ["gold", "iron"]}, {"acr": "iron"}, True),
        ({"acr": ["gold"]}, {"acr": "gol"}, False),
        ({"acr": ["gold"]}, {"acr": "Gold"}, False),
        ({"acr": ["gold"]}, {"acr": None}, False),
        ({"max_age": 60}, {"aut": NOW - MINUTE}, True),
        ({"max_age": 60}, {"aut": NOW - MINUTE - 1}, False),
        ({"max_age": 0}, {"aut": NOW}, True),
        ({"max_age": 0}, {"aut": NOW - 1}, False),
        ({"max_age": 60}, {"aut": None}, False),
        ({"acr": ["gold"], "max_age": 60}, {"acr": "gold", "aut": NOW - 2 * MINUTE}, False),
    ],
)
def test_the_login_is_as_strong_and_fresh_as_asked_for(
    asked: dict[str, object], login: dict[str, Any], well: bool
) -> None:
    parked = parked_task(asked=asked)
    message = approval(parked, **login)
    if well:
        floors(case(parked), message, now=SOON)
        return
    refused(Code.APPROVAL_WEAK, case(parked), message)
    assert message.context is not None
    with pytest.raises(ApprovalRefused):
        check_login(parked.obligation, message.context, at=NOW)


def test_the_login_is_judged_when_the_approval_was_sealed() -> None:
    parked = parked_task(asked={"max_age": 60})
    message = approval(parked, aut=NOW - MINUTE, stored=NOW + 30 * SECOND)
    floors(case(parked), message, now=NOW + 5 * MINUTE)


def test_what_is_counted_is_what_the_context_and_the_log_say() -> None:
    parked = parked_task()
    message = approval(parked, acr="gold", aut=NOW - MINUTE, sid="s-2", cid="phone")
    counted = verdict_of(case(parked, Verdict.DENY), message, record=b"r" * 32, issued=NOW - SECOND)
    assert counted == verdict(
        "boss",
        verdict=Verdict.DENY,
        session="s-2",
        client="phone",
        acr="gold",
        authenticated=NOW - MINUTE,
        time=NOW + SECOND,
        message=message.header.digest,
        record=b"r" * 32,
        edge=EDGE.iss,
        issued=NOW - SECOND,
    )
    bare = verdict_of(case(parked), approval(parked, aut=None), record=b"r" * 32, issued=0)
    assert (bare.acr, bare.authenticated) == ("", 0)
    core = message._replace(arrival=CoreArrival(subject="", started=NOW, audit_created=NOW))
    for bent in (message._replace(context=None), core):
        with pytest.raises(TypeError):
            verdict_of(case(parked), bent, record=b"r" * 32, issued=0)


async def test_an_engine_that_breaks_lets_nobody() -> None:
    class Broken:
        async def approve(self, document: bytes) -> object:
            raise RuntimeError(document.decode())

    engine: Any = Broken()
    answer = await ask_about(engine, b"secret")
    assert isinstance(answer, PolicyUnavailable)
    assert answer.detail == "RuntimeError"
