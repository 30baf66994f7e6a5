"""The floors of standing grants at their bounds, and against what is nearly right."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from vectors.issuing import EDGE, NOW, SECOND
from vectors.world import context

from sealbus.bus.sending.message import Content
from sealbus.bus.work.schedules.request import Planned, ScheduleRequest, ScheduleState
from sealbus.bus.work.schedules.rule import Every
from sealbus.bus.work.schedules.standing import (
    check_granted,
    check_standing,
    is_of,
    own_name,
    standing_draft,
    standing_name,
    users_part,
)
from sealbus.envelopes.errors import HandlingError
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.trust.spiffe_id import SpiffeId

OWN = SpiffeId(EDGE)
DAY = 86_400 * SECOND
OTHERS = (EDGE + "/more", EDGE[:-1], EDGE.replace("/edge", "/Edge"), EDGE.replace("example.org", "other.example"))
NEAR = [SpiffeId(one) for one in OTHERS]


def user(**changes: Any) -> UserContext:
    said = {"scp": ["inventory", "sealbus:schedule"], "aut": NOW, **changes}
    return parse_payload(context(**said).payload)


def planned(**changes: Any) -> Planned:
    said = {
        "action": "inventory.count",
        "body": Content(b"{}", "application/json"),
        "when": Every(seconds=60, start=NOW),
        "until": NOW + DAY,
        "grants": (),
    }
    return Planned(**{**said, **changes})


def checked(person: UserContext | None, *, iss: SpiffeId = OWN, iat: int = NOW, name: str = "", **changes: Any) -> None:
    name = name or standing_name(person or user(), "often")
    request = ScheduleRequest(name=name, planned=planned(**changes))
    message: Any = SimpleNamespace(header=SimpleNamespace(iss=iss, par=None, iat=iat), context=person)
    check_standing(request, message, own=OWN, fresh=300)


def test_what_meets_the_floors() -> None:
    checked(user())
    checked(user(), iat=NOW + 360 * SECOND)
    checked(user(sid="Standing-0"))


@pytest.mark.parametrize("iss", NEAR)
def test_only_this_edge_asks_and_mints(iss: SpiffeId) -> None:
    with pytest.raises(HandlingError):
        checked(user(), iss=iss)
    with pytest.raises(HandlingError):
        checked(replace(user(), iss=iss))


@pytest.mark.parametrize("scope", ["sealbus:schedul", "sealbus:schedules", "Sealbus:schedule", ""])
def test_no_other_scope_is_enough(scope: str) -> None:
    with pytest.raises(HandlingError):
        checked(user(scp=["inventory", scope]))


def test_a_login_is_too_old_after_the_time_it_takes_to_ask() -> None:
    with pytest.raises(HandlingError):
        checked(user(), iat=NOW + 360 * SECOND + 1)


def test_a_name_is_of_its_user_alone() -> None:
    name = standing_name(user(), "often")
    assert (own_name(name), is_of(name, user()), users_part(name) + "often") == ("often", True, name)
    others = [user(sub="u-1002"), user(idp="https://other.example")]
    assert not any(is_of(name, one) for one in others)
    assert not is_of(name.upper(), user())
    assert not is_of(name[:24], user())
    with pytest.raises(HandlingError):
        checked(user(), name=name.upper())


def test_what_is_asked_without_what_is_done_can_only_end_it() -> None:
    message: Any = SimpleNamespace(header=SimpleNamespace(iss=OWN, par=None, iat=NOW), context=user(scp=[], aut=None))
    name = standing_name(user(), "often")
    check_standing(ScheduleRequest(name=name, state=ScheduleState.REMOVED), message, own=OWN, fresh=300)
    for state in (ScheduleState.ON, ScheduleState.PAUSED):
        with pytest.raises(HandlingError):
            check_standing(ScheduleRequest(name=name, state=state), message, own=OWN, fresh=300)


def test_a_grant_lasts_90_days_to_the_microsecond() -> None:
    last = NOW + 90 * DAY + 5 * SECOND
    check_granted(planned(until=last), NOW)
    with pytest.raises(ValueError, match="90 days"):
        check_granted(planned(until=last + 1), NOW)


def test_scopes_of_ours_do_not_go_along() -> None:
    person = user(scp=["a", "sealbus:schedule", "sealbus:approve", "Sealbus:x", "sealbus"])
    draft = standing_draft(person, bytes(32), transaction=bytes(16), now=NOW, start=SECOND, life=2 * SECOND)
    assert draft.scp == ("a", "Sealbus:x", "sealbus")
    assert (draft.iat, draft.exp, draft.end, draft.sid) == (NOW, NOW + SECOND, NOW + 2 * SECOND, "standing-" + "0" * 32)
