"""Answers are decided together and each for itself; what the policy did not allow is recorded like what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from support.acceptance import statement
from support.engines import ScriptedEngine, allow, deny
from support.envelopes import MINUTE, NOW, agent
from support.results import Requester, answer

from sealbus.bus.audit.redaction import DECISIONS_ALONE
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.gate import reply_policy as answer_policy
from sealbus.bus.gate.authorizer import Authorizer
from sealbus.bus.gate.reply_policy import Received, ReplyPolicy
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.errors import Code, Denied, PolicyFailed, PolicyUnavailable, SealbusError
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord, StreamPlace
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.request import input_document

CORE = CorePlace(opened=NOW)


class Notes:
    """Stands for the audit writer, of which only `note` is asked, and what is not to be recorded."""

    recording = DECISIONS_ALONE

    def __init__(self) -> None:
        self.noted: list[tuple[DecisionRecord, VerifiedResult]] = []

    async def note(self, record: DecisionRecord, *, about: VerifiedResult) -> None:
        self.noted.append((record, about))


def reply() -> VerifiedResult:
    return Requester().reply(answer())


async def decide(engine: ScriptedEngine, *received: Received) -> tuple[list[SealbusError | None], Notes]:
    notes = Notes()
    policy = ReplyPolicy(authorizer=Authorizer(engine=engine), audit=cast("AuditWriter", notes))
    return await policy.decide(received, now=NOW + MINUTE), notes


async def test_the_policy_is_asked_about_who_answers_and_for_whom_we_asked() -> None:
    engine, context = ScriptedEngine(), parse_payload(statement().payload)
    result = reply()
    refused, notes = await decide(engine, Received(action="pricing.quote", context=context, result=result, place=CORE))
    assert refused == [None]
    [asked] = engine.asked
    assert asked["subject"]["id"] == agent("pricing").value
    assert asked["action"]["name"] == "pricing.quote.reply"
    assert (asked["context"]["kind"], asked["context"]["chain"]) == ("reply", [agent("pricing").value])
    assert asked["context"]["user"]["id"] == context.sub
    [(record, about)] = notes.noted
    assert (record.action, record.allow, record.code, record.place) == ("pricing.quote.reply", True, None, CORE)
    assert about is result


async def test_each_answer_has_its_own_verdict() -> None:
    def verdict(document: dict[str, Any]) -> object:
        return {
            "a.one.reply": allow(),
            "a.two.reply": deny("not_today"),
            "a.three.reply": PolicyUnavailable("away"),
            "a.four.reply": PolicyFailed("nonsense"),
        }[document["action"]["name"]]

    place = StreamPlace(stream="RESULTS", sequence=3, stored=NOW)
    refused, notes = await decide(
        ScriptedEngine(verdict),  # type: ignore[arg-type]  # all that it gives is a verdict
        *(Received(action=f"a.{name}", context=None, result=reply(), place=place) for name in ("one", "two", "three")),
        Received(action="a.four", context=None, result=reply(), place=place),
    )
    allowed, denied, unavailable, failed = refused
    assert allowed is None
    assert isinstance(denied, Denied)
    assert denied.reasons == ("not_today",)
    assert isinstance(unavailable, PolicyUnavailable)
    assert isinstance(failed, PolicyFailed)
    assert [(one.allow, one.code) for one, _ in notes.noted] == [
        (True, None),
        (False, Code.DENIED),
        (False, Code.POLICY_UNAVAILABLE),
        (False, Code.POLICY_ERROR),
    ]
    assert {one.place for one, _ in notes.noted} == {place}


async def test_a_question_that_cannot_be_asked_refuses_its_own_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, made = ScriptedEngine(), input_document

    def fails(request: Any) -> bytes:
        if request.action == "a.one.reply":
            raise PolicyFailed("over 65,536 bytes")
        return made(request)

    monkeypatch.setattr(answer_policy, "input_document", fails)
    refused, notes = await decide(
        engine, *(Received(action=f"a.{name}", context=None, result=reply(), place=CORE) for name in ("one", "two"))
    )
    assert [type(one) for one in refused] == [PolicyFailed, type(None)]
    assert [one.action for one, _ in notes.noted] == ["a.two.reply"]
    assert len(engine.asked) == 1


async def test_nothing_received_is_nothing_asked() -> None:
    engine = ScriptedEngine()
    refused, notes = await decide(engine)
    assert (refused, notes.noted, engine.asked) == ([], [], [])


@pytest.mark.parametrize("verdict", [allow, deny])
async def test_an_answer_whose_decision_no_record_can_hold_may_not_be_used(verdict: Callable[..., Decision]) -> None:
    """Raised, it would end who receives the answers to all our calls."""
    engine = ScriptedEngine(lambda _: verdict(obligations=({"type": "show_reasons", "more": "x" * 70_000},)))
    received = Received(action="pricing.quote", context=None, result=reply(), place=CORE)
    [refused], notes = await decide(engine, received)
    assert isinstance(refused, SealbusError)
    assert notes.noted == []
    if verdict is allow:
        assert refused.code is Code.AUDIT_UNAVAILABLE


@pytest.mark.parametrize(
    ("type_", "code"), [("show_reasons", None), ("watermark", Code.OBLIGATION_UNKNOWN), (1, Code.OBLIGATION_UNKNOWN)]
)
async def test_about_an_answer_nothing_is_honoured(type_: object, code: Code | None) -> None:
    engine = ScriptedEngine(lambda _: allow(obligations=({"type": type_},)))
    [refused], notes = await decide(engine, Received(action="a.b", context=None, result=reply(), place=CORE))
    [(record, _)] = notes.noted
    assert (record.allow, record.code, bool(record.obligations)) == (code is None, code, True)
    assert (refused.code if isinstance(refused, Denied) else None) == code
