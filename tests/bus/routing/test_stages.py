"""The stages of a message: what counts as allowed, and that nothing else does."""

from __future__ import annotations

from typing import Any, cast

import pytest
from support.audit import opened

from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.routes import Permitted, Route
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.envelopes.errors import BadBody, Code
from sealbus.policies.decision.decision import Decision

OPENED = cast("Opened", None)


def decision(allow: object) -> Decision:
    made = Decision(allow=False, revision="1", engine="scripted")
    object.__setattr__(made, "allow", allow)  # past what the decision itself would refuse
    return made


def test_only_yes_without_an_error_is_allowed() -> None:
    decided = Decided(opened=OPENED, decision=decision(allow=True))
    assert decided.allowed
    assert decided.code is None


@pytest.mark.parametrize("allow", [False, None, 1, "true", [True]])
def test_anything_but_true_is_denied(allow: object) -> None:
    decided = Decided(opened=OPENED, decision=decision(allow))
    assert not decided.allowed
    assert decided.code is Code.DENIED


def test_no_decision_is_no_permission() -> None:
    decided = Decided(opened=OPENED)
    assert not decided.allowed
    assert decided.code is Code.DENIED


def test_an_error_outweighs_a_yes_and_says_why() -> None:
    decided = Decided(opened=OPENED, decision=decision(allow=True), error=BadBody("no"))
    assert not decided.allowed
    assert decided.code is Code.BAD_BODY


@pytest.mark.parametrize("stage", [Opened, Decided, Permitted])
def test_no_stage_can_be_changed_or_made_without_the_one_before(stage: Any) -> None:
    made = stage(*[None] * len(stage._fields))
    for name in (*stage._fields, "another"):
        with pytest.raises(AttributeError):
            setattr(made, name, "other")
    with pytest.raises(TypeError):
        stage()


def test_no_stage_shows_a_payload() -> None:
    decided = Decided(OPENED, {"pin": "1234"}, b'{"pin":"1234"}')
    permitted = Permitted(
        message=opened(),
        value={"pin": "1234"},
        route=cast("Route", None),
        leaf=b"",
        sent=[],
        cancellation=Cancellation(),
    )
    assert "1234" not in f"{decided!r} {permitted!r}"
