"""Who is revoked is denied before any policy is asked, in the place of its question among others."""

from __future__ import annotations

from collections.abc import Sequence

from support.engines import ScriptedEngine, Verdict, allow

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations
from sealbus.policies.decision.approval import approval_question
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.documents import checked_document
from sealbus.policies.decision.request import NO_USER, Caller, Request, Resource, User, input_document
from sealbus.policies.engines.revoking import RevokingEngine

ISSUER = "https://idp.example"
REVOKED = Revocations(
    revision="revocations-3",
    users={(ISSUER, "mallory"): 2_000_000_000_000_000, (ISSUER, "again"): 1_800_000_000_000_000},
    sessions=frozenset({(ISSUER, "s-13")}),
    clients=frozenset({(ISSUER, "kiosk")}),
)


def question(user: User) -> bytes:
    return input_document(
        Request(
            caller=Caller(subject="spiffe://example.org/agent/planner", trust_domain="example.org", user=user),
            action="inventory.update",
            resource=Resource(type="item", id="42"),
            time=1_800_000_000_000_000,
            nats_subject="task.inventory.update",
            kind="task",
            message_id="00" * 16,
        )
    )


def user(**changes: object) -> User:
    known = {"id": "alice", "idp": ISSUER, "session": "s-1", "client": "web", "auth_time": 1_799_999_999}
    return User(**{**known, **changes})  # type: ignore[arg-type]  # fields of a user


async def reasons(revocations: Revocations, *users: User) -> list[tuple[bool, tuple[str, ...]]]:
    engine = ScriptedEngine()
    answers = await RevokingEngine(engine, lambda: revocations).decide([question(one) for one in users])
    found = []
    for answer in answers:
        assert isinstance(answer, Decision)
        found.append((answer.allow, answer.reasons))
    assert len(engine.asked) == sum(allowed for allowed, _ in found)
    return found


async def test_each_answer_stands_where_its_question_stood() -> None:
    asked = (user(), user(session="s-13"), NO_USER, user(id="mallory"), user(client="kiosk"), user(id="bob"))
    assert await reasons(REVOKED, *asked) == [
        (True, ()),
        (False, ("revoked_session",)),
        (True, ()),
        (False, ("revoked_user",)),
        (False, ("revoked_client",)),
        (True, ()),
    ]
    assert await reasons(NONE_REVOKED, *asked) == [(True, ())] * 6


async def test_nobody_is_asked_about_where_all_are_revoked() -> None:
    assert await reasons(REVOKED, user(session="s-13")) == [(False, ("revoked_session",))]


async def test_a_user_who_logged_in_again_is_somebody_else() -> None:
    assert await reasons(
        REVOKED,
        user(id="again", auth_time=1_799_999_999),
        user(id="again", auth_time=1_800_000_000),
        user(id="again", auth_time=1_800_000_001),
        user(id="again", auth_time=0),
    ) == [(False, ("revoked_user",)), (False, ("revoked_user",)), (True, ()), (False, ("revoked_user",))]


async def test_another_issuers_user_of_that_name_is_not_meant() -> None:
    assert await reasons(REVOKED, user(idp="https://other.example", session="s-13", id="mallory")) == [(True, ())]


async def test_the_record_can_say_why() -> None:
    [answer] = await RevokingEngine(ScriptedEngine(), lambda: REVOKED).decide([question(user(session="s-13"))])
    assert answer == Decision(
        allow=False, reasons=("revoked_session",), policy="revocations", revision="revocations-3", engine="revocations"
    )


async def test_answers_of_a_wrong_number_are_none() -> None:
    class Short(ScriptedEngine):
        async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
            return [allow()]

    engine = RevokingEngine(Short(), lambda: REVOKED)
    answers = await engine.decide([question(user()), question(user(session="s-13")), question(user())])
    assert [type(one) for one in answers] == [PolicyFailed] * 3


async def test_an_approver_who_is_revoked_is_denied_and_the_policy_is_asked_about_others() -> None:
    engine = ScriptedEngine()
    revoking, unrevoking = RevokingEngine(engine, lambda: REVOKED), RevokingEngine(engine, lambda: NONE_REVOKED)
    of = question(user(session="s-13"))

    def approval(approver: User) -> bytes:
        return approval_question(checked_document(question(approver)), of=of, obligation=b"{}")

    answer = await revoking.approve(approval(user(session="s-13")))
    assert answer == Decision(
        allow=False, reasons=("revoked_session",), policy="revocations", revision="revocations-3", engine="revocations"
    )
    assert engine.asked == []
    # Whose message it is does not matter here: the message itself is decided on again.
    for asked in (revoking.approve(approval(user())), unrevoking.approve(approval(user(session="s-13")))):
        answer = await asked
        assert isinstance(answer, Decision)
        assert answer.allow is True
    assert [sorted(one)[:3] for one in engine.asked] == [["action", "context", "obligation"]] * 2


async def test_everything_else_is_the_engines() -> None:
    engine = ScriptedEngine()
    async with RevokingEngine(engine, lambda: REVOKED) as revoking:
        assert revoking.name == "scripted"
        assert (await revoking.status()).revision == "1"
        assert isinstance(await revoking.connect(b"{}"), PolicyFailed)
