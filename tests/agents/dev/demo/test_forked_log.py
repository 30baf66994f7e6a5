"""The scene with two histories has its outcome from the witness alone: one that cosigns anything makes it fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.audit import decision_of, opened

from sealbus.agents.control.witness import folder
from sealbus.agents.control.witness.submission import Submission
from sealbus.agents.dev.demo.forked_log import FORKED_LOG
from sealbus.agents.dev.demo.scene import Outcome
from sealbus.envelopes.log.checkpoint import Checkpoint

[SCENE] = FORKED_LOG


def stage() -> Any:
    allowed = decision_of(opened())
    denied = allowed._replace(allow=False, code="denied", reasons=("not_owner",))
    return SimpleNamespace(entries=[SimpleNamespace(record=record) for record in (allowed, denied, object(), allowed)])


async def test_the_partner_is_not_deceived() -> None:
    assert await SCENE.play(stage()) == SCENE.expected == Outcome(got=422, code="no_quorum")


async def test_a_witness_that_cosigns_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(submission: Submission, last: Checkpoint | None) -> Checkpoint:
        return Checkpoint(submission.log.origin, submission.size, submission.root)

    monkeypatch.setattr(folder, "check_extension", believe)
    assert await SCENE.play(stage()) == Outcome(got="error", code="no_proof")
