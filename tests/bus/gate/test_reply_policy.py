"""Answers are decided together and each for itself; what the policy did not allow is recorded like what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from support.acceptance import statement
from support.engines import ScriptedEngine, allow, deny
from support.envelopes import MINUTE, NOW, agent, message_id
from support.results import Requester, answer

from sealbus.bus.audit.redaction import DECISIONS_ALONE
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.gate import reply_policy as answer_policy
from sealbus.bus.gate.authorizer import Authorizer
from sealbus.bus.gate.reply_policy import Received, ReplyPolicy
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.errors import Code, Denied, PolicyFailed, PolicyUnavailable, SealbusError
from sealbus.envelopes.message.user_context import SubjectType, parse_payload
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord, StreamPlace
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.revocations import Revocations
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.request import input_document

CORE = CorePlace(opened=NOW)
STREAM = StreamPlace(stream="RESULTS", sequence=3, stored=NOW)


class Notes:
    """Stands for the audit writer, of which only `note` is asked, and what is not to be recorded."""

    recording = DECISIONS_ALONE

    def __init__(self) -> None:
        self.noted: list[tuple[DecisionRecord, VerifiedResult]] = []
        self.again: list[tuple[str, str | None]] = []
        self.full = False
        self.lost: list[Callable[[], None]] = []

    async def note(
        self, record: DecisionRecord, *, about: VerifiedResult, lost: Callable[[], None] = lambda: None
    ) -> None:
        self.noted.append((record, about))
        self.lost.append(lost)

    def counted_again(self, issuer: SpiffeId, code: str | None) -> bool:
        if not self.full:
            self.again.append((issuer.value, code))
        return not self.full


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


def another(number: int) -> VerifiedResult:
    """Return another answer to the same request."""
    return Requester().reply(answer(id=message_id(number)))


class Reader:
    """Somebody who reads one answer again and again, under a policy and revocations that a test changes."""

    def __init__(self, *, most: int = 100) -> None:
        self.notes = Notes()
        self.serial = 0
        self.verdict: Decision | PolicyUnavailable = allow()
        self.result = reply()
        self.context = parse_payload(statement().payload)
        self.place: CorePlace | StreamPlace = STREAM
        self.engine = ScriptedEngine(lambda _: self.verdict)
        self.policy = ReplyPolicy(
            authorizer=Authorizer(engine=self.engine),
            audit=cast("AuditWriter", self.notes),
            revocations=lambda: Revocations(serial=self.serial),
            most=most,
        )

    async def read(self, times: int = 1) -> tuple[int, int]:
        """Read so many times; return how many records that made, and how many were counted."""
        recorded, again = len(self.notes.noted), len(self.notes.again)
        asked = len(self.engine.asked)
        for _ in range(times):
            received = Received(action="pricing.quote", context=self.context, result=self.result, place=self.place)
            await self.policy.decide([received], now=NOW + MINUTE)
        assert len(self.engine.asked) == asked + times
        return len(self.notes.noted) - recorded, len(self.notes.again) - again


async def test_each_read_is_decided_and_its_record_written_once() -> None:
    reader = Reader()
    assert await reader.read(25) == (1, 24)
    assert set(reader.notes.again) == {(agent("pricing").value, None)}
    [(record, _)] = reader.notes.noted
    assert reader.context.sub.encode() in (record.input or b"")


def _user(**changes: Any) -> Callable[[Reader], None]:
    def change(reader: Reader) -> None:
        reader.context = replace(reader.context, **changes)

    return change


def _verdict(verdict: Decision | PolicyUnavailable) -> Callable[[Reader], None]:
    return lambda reader: setattr(reader, "verdict", verdict)


@pytest.mark.parametrize(
    "change",
    [
        _user(sub="bob"),
        _user(idp="https://other.example"),
        _user(sid="another session"),
        _user(cid="another client"),
        _user(dom=TrustDomain("partner.example")),
        _user(typ=SubjectType.CLIENT),
        lambda reader: setattr(reader, "context", None),
        lambda reader: setattr(reader, "result", another(4)),
        lambda reader: setattr(reader, "serial", 1),
        _verdict(replace(allow(), revision="2")),
        _verdict(deny("not_today")),
        _verdict(PolicyUnavailable("away")),
    ],
    ids=[
        "user",
        "idp",
        "session",
        "client",
        "domain",
        "type",
        "nobody",
        "message",
        "revocations",
        "policy",
        "verdict",
        "failure",
    ],
)
async def test_what_changes_is_recorded_anew(change: Callable[[Reader], None]) -> None:
    reader = Reader()
    assert await reader.read(3) == (1, 2)
    change(reader)
    assert await reader.read(3) == (1, 2)


async def test_denials_that_are_read_again_are_counted_by_their_code() -> None:
    reader = Reader()
    reader.verdict = deny("not_today")
    assert await reader.read(3) == (1, 2)
    assert [code for _, code in reader.notes.again] == ["denied", "denied"]
    reader.verdict = deny("not_tomorrow")
    assert await reader.read(3) == (1, 2)


async def test_where_no_more_is_counted_each_is_recorded() -> None:
    reader = Reader()
    reader.notes.full = True
    assert await reader.read(5) == (5, 0)


async def test_what_is_forgotten_is_recorded_again() -> None:
    reader = Reader(most=2)
    results = [another(number) for number in range(4, 7)]
    for result in results:
        reader.result = result
        assert await reader.read(2) == (1, 1)
    reader.result = results[0]
    assert await reader.read(2) == (1, 1)
    reader.result = results[2]
    assert await reader.read(2) == (0, 2)


async def test_what_was_not_stored_is_recorded_again() -> None:
    reader = Reader()
    assert await reader.read(2) == (1, 1)
    reader.notes.lost[-1]()
    assert await reader.read(2) == (1, 1)


async def test_an_answer_to_a_call_is_there_once_and_always_recorded() -> None:
    reader = Reader()
    reader.place = CORE
    assert await reader.read(3) == (3, 0)
