"""Recorded decisions asked again: of a candidate, and of the policy that made them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from support.opa import require_opa
from support.policies import ALLOW, DENY, SCRIPTED, bundle, document
from support.policy_inputs import closed_policy, well_formed
from support.recorded import recorded, source

from sealbus.envelopes.errors import Code, PolicyFailed, PolicyUnavailable
from sealbus.policies.backtest import backtest as backtest_module
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.backtest.backtest import backtest, reproduce
from sealbus.policies.backtest.recorded import Change, CountedDenials, NotReplayable, Recorded, RecordedDecision
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Manifest, pack_bundle
from sealbus.policies.decision.approval import approval_question
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.decision.decision import Decision, obligations_json
from sealbus.policies.decision.engine import Answer, EngineStatus
from sealbus.policies.engines.open import open_policy

ALLOWED = Decision(allow=True, revision="r", engine="told")
FORMER = Path(__file__).parents[1] / "former_starter"
"""The Rego of the starter policy before it was a library."""


class Told:
    """An engine that answers what it is told, and remembers how many it was asked about at a time."""

    name = "told"

    def __init__(self, answer: Callable[[bytes], Answer] = lambda _: ALLOWED) -> None:
        self._answer = answer
        self.asked: list[int] = []
        self.approved: list[bytes] = []

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Answer]:
        self.asked.append(len(inputs))
        return [self._answer(one) for one in inputs]

    async def approve(self, document: bytes) -> Answer:
        self.approved.append(document)
        return self._answer(document)

    async def connect(self, document: bytes) -> ConnectAnswer:
        raise AssertionError("a backtest is about messages")

    async def status(self) -> EngineStatus:
        return EngineStatus(engine=self.name, revision="r")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


async def test_decisions_are_asked_in_batches_and_nothing_waits_at_the_end() -> None:
    engine = Told()
    report = await backtest(source(recorded() for _ in range(7)), engine, batch=3)
    assert engine.asked == [3, 3, 1]
    assert (report.read, report.compared, report.same) == (7, 7, 7)


@pytest.mark.parametrize("right", ["a", "b"])
async def test_of_several_bundles_of_a_revision_one_that_agrees_is_enough(tmp_path: Path, right: str) -> None:
    for name in ("a", "b"):
        answers = {"yes": ALLOW, "no": DENY} if name == right else {"yes": DENY, "no": ALLOW}
        (tmp_path / name).write_bytes(bundle(answers, revision="r1").raw)
    told: list[tuple[str, Sequence[str]]] = []
    log = [
        recorded(revision="r1", redacted=True),
        recorded("yes", revision="r1"),
        recorded("yes", revision="r1", reasons=("r",)),
        recorded(revision="r1", input=b"7"),
    ]
    async with ArchivedPolicies(tmp_path, open_engine=open_policy) as policies:
        report = await reproduce(
            source(log), policies, on_contradiction=lambda one, why: told.append((one.action, why))
        )
    assert (report.compared, report.same, report.contradictions) == (2, 1, 2)
    assert [why for _, why in told] == [("bad_input",), (told[1][1][0],)]


async def test_what_one_bundle_leaves_unanswered_is_not_known(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(bundle({name: ALLOW}, revision="r1").raw)
    denied = Decision(allow=False, revision="r", engine="told")
    answers: dict[str, Answer] = {"a": denied, "b": PolicyUnavailable("away"), "c": denied}

    def opening(file: Path) -> Told:
        return Told(lambda _: answers[file.name])

    async with ArchivedPolicies(tmp_path, open_engine=opening) as policies:
        report = await reproduce(source([recorded(revision="r1")]), policies)
    assert (report.compared, report.unanswered) == (0, 1)


def approval(of: str = "yes") -> bytes:
    return approval_question(document("x._approve"), of=document(of), obligation=b'{"queue":"managers"}')


async def test_who_might_approve_is_asked_at_its_own_rule_and_the_rest_together() -> None:
    engine = Told(lambda one: PolicyFailed("x") if b'"of"' in one else ALLOWED)
    log = [
        recorded("a.b"),
        recorded("x._approve", input=approval()),
        recorded("a.c"),
        recorded("x._approve", input=approval("no"), code=Code.POLICY_ERROR),
        # A verdict that was asked about like any message, a message that looks like a verdict, and a part of one.
        recorded("x._approve"),
        recorded("x.approve", input=approval()),
        recorded("x._approve", input=bytes(approval()).replace(b',"of":', b',"off":')),
        recorded("x._approve", input=bytes(approval()).replace(b',"obligation":', b',"obliged":')),
    ]
    report = await backtest(source(log), engine)
    assert engine.asked == [6]
    assert engine.approved == [approval(), approval("no")]
    assert (report.compared, report.same) == (8, 5)
    assert dict(report.changes) == {Change.ALLOW_TO_ERROR: 3}


async def test_nothing_else_is_asked_where_all_are_approvals() -> None:
    engine = Told()
    report = await backtest(source([recorded("x._approve", input=approval())]), engine)
    assert (engine.asked, len(engine.approved), report.same) == ([], 1, 1)


APPROVALS = """package sealbus.approval

decision := decide(input)

decide(request) := data.answers[request.of.action.name]
"""


async def test_an_approval_is_made_again_by_the_policy_of_its_time(tmp_path: Path) -> None:
    modules = {"authz.rego": SCRIPTED.encode(), "approval.rego": APPROVALS.encode()}
    manifest = Manifest(revision="r1", roots=("answers", "sealbus"))
    (tmp_path / "a").write_bytes(pack_bundle(modules, {"answers": {"yes": ALLOW, "x._approve": DENY}}, manifest))
    (tmp_path / "b").write_bytes(bundle({"yes": ALLOW}, revision="r2").raw)
    told: list[tuple[str, Sequence[str]]] = []
    log = [
        recorded("x._approve", input=approval(), revision="r1"),
        recorded("x._approve", revision="r1", code=Code.DENIED, reasons=("no",), obligations=b'[{"notify":"owner"}]'),
        recorded("yes", revision="r1"),
        # A policy without the rule allowed nobody anything.
        recorded("x._approve", input=approval(), revision="r2", sequence=4),
        recorded("x._approve", input=approval(), revision="r2", code=Code.POLICY_ERROR),
    ]
    async with ArchivedPolicies(tmp_path, open_engine=open_policy) as policies:
        report = await reproduce(
            source(log), policies, on_contradiction=lambda one, why: told.append((str(one.sequence), why))
        )
    assert (report.compared, report.same) == (5, 4)
    assert told == [("4", (Change.ALLOW_TO_ERROR,))]


async def test_an_empty_log_asks_nothing() -> None:
    engine = Told()
    assert (await backtest(source([]), engine)).read == 0
    assert engine.asked == []


async def test_each_answer_is_compared_with_its_own_record() -> None:
    engine = Told(lambda one: PolicyFailed("x") if b'"fails"' in one else ALLOWED)
    log: list[Recorded] = [
        recorded("yes"), CountedDenials(caller="c", count=5), recorded("yes", code=Code.DENIED),
        recorded("fails"), recorded("yes", code=Code.BAD_BODY), recorded("yes", reasons=("r",)),
    ]  # fmt: skip
    report = await backtest(source(log), engine, batch=2)
    assert report.changes == {Change.DENY_TO_ALLOW: 1, Change.ALLOW_TO_ERROR: 1, Change.REASONS: 1}
    assert (report.read, report.compared, report.same) == (10, 4, 1)
    assert report.not_replayable == {NotReplayable.COUNTED: 5, NotReplayable.NOT_ASKED: 1}


async def test_an_engine_that_does_not_answer_says_nothing_about_the_policy() -> None:
    report = await backtest(source([recorded()]), Told(lambda _: PolicyUnavailable("late")))
    assert (report.unanswered, report.compared, report.changes.total()) == (1, 0, 0)


async def log_of(documents: Sequence[bytes], policy: Path) -> list[RecordedDecision]:
    """Return what `policy` decides about `documents`, as it would be recorded."""
    async with open_policy(policy) as engine:
        answers = await engine.decide(documents)
    log = []
    for number, (asked, answer) in enumerate(zip(documents, answers, strict=True)):
        assert isinstance(answer, Decision)
        log.append(
            recorded(
                code=None if answer.allow else Code.DENIED,
                input=bytes(asked),
                reasons=answer.reasons,
                obligations=obligations_json(answer),
                revision=answer.revision,
                sequence=number,
            )
        )
    return log


@pytest.fixture(scope="module")
def documents() -> list[bytes]:
    return well_formed(600)


async def test_the_same_policy_changes_nothing(documents: list[bytes]) -> None:
    log = await log_of(documents, STARTER)
    async with open_policy(STARTER) as engine:
        report = await backtest(source(log), engine)
    assert (report.same, report.compared, report.changes.total()) == (600, 600, 0)


async def test_a_policy_of_before_the_library_replays_and_todays_starter_changes_nothing(
    documents: list[bytes], tmp_path: Path
) -> None:
    built = build_bundle(STARTER)
    modules = {one.relative_to(FORMER).as_posix(): one.read_bytes() for one in FORMER.rglob("*.rego")}
    file = tmp_path / "former.tar.gz"
    file.write_bytes(pack_bundle(modules, built.data, Manifest(revision="former", roots=("sealbus",))))
    log = await log_of(documents[:200], file)
    async with ArchivedPolicies(tmp_path, open_engine=open_policy) as policies:
        report = await reproduce(source(log), policies)
    assert (report.same, report.compared, policies.problems) == (200, 200, {})
    async with open_policy(STARTER) as engine:
        report = await backtest(source(log), engine)
    assert (report.same, report.compared) == (200, 200)


async def test_decisions_about_users_who_had_no_type_yet_are_asked_about_as_ours() -> None:
    users, nobody = b',"type":"user","domain":""}', b',"type":"","domain":""}'
    made = well_formed(600)
    ours = [one for one in made if users in one or (nobody in one and b'"present":false' in one)]
    then = [one.replace(users, b"}").replace(nobody, b"}") for one in ours]
    log = await log_of(ours, STARTER)
    async with open_policy(STARTER) as engine:
        report = await backtest(source(replace(one, input=old) for one, old in zip(log, then, strict=True)), engine)
        assert not any(b'"domain"' in one for one in then)
        # Which is not what an engine says that is asked about them as they are.
        assert [isinstance(one, Decision) and one.allow for one in await engine.decide(then)] != [
            one.code is None for one in log
        ]
    assert (report.same, report.compared) == (len(ours), len(ours))


@pytest.mark.opa
async def test_a_real_opa_finds_what_the_embedded_engine_finds(documents: list[bytes], tmp_path: Path) -> None:
    log = await log_of(documents, STARTER)
    allowed = sum(one.code is None for one in log)
    closed = closed_policy(tmp_path / "closed")
    found = []
    for opa in (None, require_opa()):
        async with open_policy(closed, opa=opa) as engine:
            report = await backtest(source(log), engine)
        assert report.changes[Change.ALLOW_TO_DENY] == allowed > 100
        assert report.unanswered == 0
        found.append((report.changes, report.groups, report.same))
    assert found[0] == found[1]


# Reproducing


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[ArchivedPolicies]:
    """Return two revisions, which say the opposite of each other."""
    (tmp_path / "one").write_bytes(bundle({"yes": ALLOW, "no": DENY}, revision="r1").raw)
    (tmp_path / "two").write_bytes(bundle({"yes": DENY, "no": ALLOW}, revision="r2").raw)
    async with ArchivedPolicies(tmp_path, open_engine=open_policy) as policies:
        yield policies


@pytest.mark.opa
async def test_a_real_opa_for_each_revision(tmp_path: Path) -> None:
    for revision, answers in (("r1", (ALLOW, DENY)), ("r2", (DENY, ALLOW)), ("r3", (ALLOW, ALLOW))):
        yes, no = answers
        (tmp_path / revision).write_bytes(bundle({"yes": yes, "no": no}, revision=revision).raw)
    log = [recorded("yes"), deny("r2", "yes"), recorded("no", revision="r3"), deny("r1", "no"), recorded("no")]
    opening = partial(open_policy, opa=require_opa())
    async with ArchivedPolicies(tmp_path, open_engine=opening, most=2) as policies:
        # One at a time, so that engines are closed while others stay open.
        report = await reproduce(source(log), policies, batch=1)
    assert (report.same, report.unanswered) == (4, 0)
    assert report.changes == {Change.ALLOW_TO_DENY: 1}


def deny(revision: str, action: str) -> RecordedDecision:
    return recorded(action, code=Code.DENIED, reasons=("no",), obligations=b'[{"notify":"owner"}]', revision=revision)


async def test_each_decision_is_asked_of_its_own_policy(archive: ArchivedPolicies) -> None:
    log: list[Recorded] = [
        recorded("yes", revision="r1"), deny("r2", "yes"), deny("r1", "no"), recorded("no", revision="r2"),
        CountedDenials(caller="c", count=2), recorded("yes", revision="r3"),
        recorded("yes", code=Code.POLICY_ERROR, revision=""),
    ]  # fmt: skip
    report = await reproduce(source(log), archive, batch=2)
    assert (report.same, report.compared, report.contradictions) == (4, 4, 0)
    assert report.not_replayable == {NotReplayable.COUNTED: 2, NotReplayable.NO_BUNDLE: 2}


@pytest.mark.parametrize(
    ("one", "change"),
    [
        (recorded("no", revision="r1"), Change.ALLOW_TO_DENY),
        (deny("r1", "yes"), Change.DENY_TO_ALLOW),
        (recorded("yes", revision="r1", reasons=("other",)), Change.REASONS),
        (recorded("yes", revision="r1", obligations=b'[{"log":true}]'), Change.OBLIGATIONS),
        (recorded("unknown", revision="r1"), Change.ALLOW_TO_ERROR),
    ],
)
async def test_what_does_not_follow_from_its_policy_is_found(
    archive: ArchivedPolicies, one: RecordedDecision, change: Change
) -> None:
    report = await reproduce(source([one]), archive)
    assert report.changes == {change: 1}
    assert report.contradictions == 1


async def test_a_policy_that_is_refused_today_is_counted(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bundle(policy=SCRIPTED.replace("decision := decide(input)", "")).raw)
    async with ArchivedPolicies(tmp_path, open_engine=open_policy) as policies:
        report = await reproduce(source([recorded(), recorded()]), policies, batch=1)
    assert report.not_replayable == {NotReplayable.NO_BUNDLE: 2}
    assert "entrypoint" in policies.problems["one"]


async def test_one_of_two_bundles_that_is_refused_today_leaves_the_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bundle(policy=SCRIPTED.replace("decision := decide(input)", "")).raw)
    (tmp_path / "b").write_bytes(bundle().raw)
    async with ArchivedPolicies(tmp_path, open_engine=open_policy) as policies:
        report = await reproduce(source([recorded(), recorded()]), policies)
    assert (report.same, set(policies.problems)) == (2, {"a", "r1"})


class Gone(ArchivedPolicies):
    """Bundles that were there a moment ago."""

    def has(self, revision: str) -> bool:
        return bool(revision)

    async def engine(self, revision: str, number: int = 0) -> None:
        del revision, number


async def test_a_policy_that_went_away_is_counted(tmp_path: Path) -> None:
    async with Gone(tmp_path, open_engine=open_policy) as policies:
        report = await reproduce(source([recorded(), recorded()]), policies)
    assert report.not_replayable == {NotReplayable.NO_BUNDLE: 2}


async def test_what_waits_for_its_batch_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest_module, "WAITING", 10)
    for number in range(6):
        (tmp_path / str(number)).write_bytes(bundle(revision=f"r{number}").raw)
    engine = Told()
    async with ArchivedPolicies(tmp_path, open_engine=lambda _: engine, most=2) as policies:
        report = await reproduce(
            source(recorded(revision=f"r{number % 6}") for number in range(60)), policies, batch=100
        )
    assert report.same == 60
    assert max(engine.asked) <= 10
    assert len(engine.asked) > 6
