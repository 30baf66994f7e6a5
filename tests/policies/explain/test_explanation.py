"""Explanations: each reason of the starter points at its condition, and nothing is told of another decision than was made."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.policies import DENY, bundle, document
from support.policy_inputs import approval_questions, starter_with_revocations, well_formed
from support.recorded import recorded

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.envelopes.printable import printable
from sealbus.policies.backtest.recorded import RecordedDecision
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.documents import InputDocument, checked_document
from sealbus.policies.explain import explanation
from sealbus.policies.explain.explanation import (
    ExplainedDecision,
    Explainer,
    LiteralShown,
    Looked,
    NotExplained,
    RuleShown,
    Unexplained,
)
from sealbus.policies.explain.rewriting import CHARACTERS
from sealbus.policies.lint.module import MODULE_BYTES, Module
from sealbus.policies.lint.regorus import Interpreter

OWNED = 'action.resource == "owned"'
LIMITS = ("properties[field] >= 0", "properties[field] <= limit")
USER = ('need == "required"', "user.present == true", 'user.id != ""', 'need == "none"')

CONDITIONS = {
    "action_not_granted": {"agents[request.subject.id].actions[request.action.name] == true"},
    "not_approved": {'given.verdict == "approve"'},
    "not_owner": {
        "user.id == properties.owner",
        "users[user.id].customers[properties.customer] == true",
        'object.get(object.get(users, user.id, {}), "type", "user") == user.type',
        'object.get(users[user.id], "type", "user") == user.type',
        'action.user == "required"',
        "user.present == true",
        'user.id != ""',
        'action.resource == "any"',
        OWNED,
    },
    "outside_business_hours": {
        "need == true",
        "need == false",
        "region := regions[request.resource.properties.region]",
        "region.weekdays[time.weekday(local)] == true",
        "region.open <= clock",
        "clock < region.close",
        "local := time.parse_rfc3339_ns(request.context.time) + (region.utc_offset_minutes * 60000000000)",
    },
    "over_limit": set(LIMITS),
    "revoked_agent": {"object.get(revoked, id, false) == false"},
    "revoked_client": {"object.get(revoked, id, false) == false"},
    "revoked_session": {"object.get(revoked, id, false) == false"},
    "revoked_user": {"object.get(revoked, id, false) == false"},
    "unknown_action": {"things[id]"},
    "unknown_agent": {"things[id]"},
    "unknown_chain_agent": {"agents[hop]", "request.subject.id in request.context.chain"},
    "unknown_user": {
        'user.type == "user"',
        'user.domain == ""',
        "user.present == false",
        'object.get(users[user.id], "type", "user") == user.type',
    },
    "user_required": set(USER),
}
"""The conditions of the starter that may be the cause of each reason."""


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(starter_with_revocations(tmp_path_factory.mktemp("starter") / "policy"))


def explained(bundle: Bundle, asked: InputDocument, *, of_approval: bool = False) -> ExplainedDecision:
    told = Explainer().explain(bundle, asked, of_approval=of_approval)
    assert isinstance(told, ExplainedDecision), told
    return told


def test_each_reason_of_the_starter_points_at_a_condition_that_failed(starter: Bundle) -> None:
    explainer = Explainer()
    source = next(one.text for one in starter.modules if one.path == "sealbus/lib/rules.rego").splitlines()
    seen: dict[str, set[str]] = defaultdict(set)
    for asked in well_formed(250):
        told = explainer.explain(starter, checked_document(asked))
        assert isinstance(told, ExplainedDecision)
        for reason in told.reasons:
            assert reason.failed, reason
            assert reason.held == ()
            for one in reason.failed:
                assert one.file == "sealbus/lib/rules.rego"
                assert one.written in source[one.line - 1]
                seen[reason.reason].add(one.written)
    assert seen.keys() == CONDITIONS.keys()
    assert {reason: found - CONDITIONS[reason] for reason, found in seen.items()} == {key: set() for key in seen}


def test_who_may_approve_is_explained_alike(starter: Bundle) -> None:
    asked = [checked_document(one) for one in approval_questions(60)]
    told = [explained(starter, one, of_approval=True) for one in asked[:20]]
    reasons = [reason for one in told for reason in one.reasons]
    assert {one.failed[0].file for one in reasons} == {"sealbus/lib/approvals.rego"}


def shown(value: object) -> str:
    return printable(json.dumps(value, ensure_ascii=False))


def test_what_was_looked_at_is_shown_and_whole_objects_are_not(starter: Bundle) -> None:
    explainer = Explainer()
    owners: list[tuple[InputDocument, LiteralShown]] = []
    calls: list[LiteralShown] = []
    for asked in map(checked_document, well_formed(100)):
        told = explainer.explain(starter, asked)
        assert isinstance(told, ExplainedDecision)
        failed = [one.failed for one in told.rules if one.failed is not None]
        owners += [(asked, one) for one in failed if one.written == "user.id == properties.owner"]
        calls += [one for one in failed if one.written.startswith("user_may_reach(")]
    for asked, one in owners:
        said = json.loads(asked)
        properties = said["resource"]["properties"]
        assert one.looked == (
            Looked(written="user.id", value=shown(said["context"]["user"]["id"])),
            Looked(written="properties.owner", value=shown(properties["owner"]) if "owner" in properties else None),
        )
    assert len(owners) > 5
    assert {one.looked for one in calls} == {()}


def one_policy(decide: str, data: Json = None, revision: str = "r1") -> Bundle:
    text = "package sealbus.authz\n\ndecision := decide(input)\n\nbatch := [decide(one) | some one in input.batch]\n\n"
    return bundle(policy=f"{text}{decide}\n", data=data or {"x": {}}, revision=revision)


ALLOWED = '{"allow": true, "reasons": [], "obligations": [], "policy": "p"}'
DENIED = '{"allow": false, "reasons": ["other_owner"], "obligations": [], "policy": "p"}'
OWNER = f"""decide(request) := {ALLOWED} if {{
	request.resource.properties.owner == "u-1"
}} else := {DENIED} if {{
	not special(request)
}}

special(request) if request.resource.properties.owner == "u-2"
"""


def test_a_reason_in_the_head_of_a_rule_is_told_by_what_held_in_its_body() -> None:
    told = explained(one_policy(OWNER), document())
    [reason] = told.reasons
    assert [(one.line, one.written) for one in reason.held] == [(10, "not special(request)")]
    looked = (Looked(written="request.resource.properties.owner", value='"u-1001"'),)
    assert reason.failed == (
        LiteralShown(file="authz.rego", line=13, written='request.resource.properties.owner == "u-2"', looked=looked),
    )
    assert (told.policy, told.revision, told.allow, told.cut, told.untraced) == ("p", "r1", False, False, ())
    first = LiteralShown(file="authz.rego", line=8, written='request.resource.properties.owner == "u-1"', looked=looked)
    assert told.rules == (
        RuleShown(rule="sealbus.authz.decide", file="authz.rego", line=8, depth=0, held=False, failed=first),
        RuleShown(rule="sealbus.authz.decide", file="authz.rego", line=10, depth=0, held=True),
        RuleShown(
            rule="sealbus.authz.special", file="authz.rego", line=13, depth=1, held=False, failed=reason.failed[0]
        ),
    )


ASKS = '{"type": "approval", "queue": "managers", "text": "a sum", "until": 60}'


@pytest.mark.parametrize(
    ("obligations", "said"),
    [(f"[{ASKS}]", ("managers", "a sum")), (f"[{ASKS}, {ASKS}]", ("", "")), ('[{"type": "show_reasons"}]', ("", ""))],
)
def test_a_denial_that_asks_for_an_approval_says_where(obligations: str, said: tuple[str, str]) -> None:
    told = explained(one_policy(OWNER.replace('"obligations": []', f'"obligations": {obligations}')), document())
    assert (told.allow, told.queue, told.asked) == (False, *said)


def test_a_reason_that_the_policy_does_not_show_is_told_without_a_cause() -> None:
    [reason] = explained(bundle({"no": DENY}), document("no")).reasons
    assert (reason.reason, reason.failed, reason.held) == ("no", (), ())


def test_a_recorded_decision_is_explained_by_the_policy_that_makes_it_again() -> None:
    made = one_policy(OWNER)
    denied = recorded(code=Code.DENIED, reasons=("other_owner",))
    other = one_policy(f"decide(_) := {ALLOWED}")
    explainer = Explainer()
    told = explainer.explain_recorded(denied, [other, made])
    assert isinstance(told, ExplainedDecision)
    assert told == explainer.explain(made, document())
    assert explainer.explain_recorded(denied, [other]) == NotExplained(
        why=Unexplained.OTHER_RESULT, detail="deny-to-allow"
    )
    assert explainer.explain_recorded(denied, []) == NotExplained(why=Unexplained.NO_POLICY)


def test_a_decision_about_an_approval_is_asked_at_its_rule(starter: Bundle) -> None:
    asked = approval_questions(1)[0]
    told = explained(starter, checked_document(asked), of_approval=True)
    one = recorded(
        "orders._approve",
        input=asked,
        code=None if told.allow else Code.DENIED,
        reasons=tuple(reason.reason for reason in told.reasons),
    )
    assert Explainer().explain_recorded(one, [starter]) == told


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (recorded(redacted=True), Unexplained.REDACTED),
        (recorded(input=None), Unexplained.NO_INPUT),
        (recorded(input=b"[]"), Unexplained.BAD_INPUT),
        (recorded(code=Code.BAD_BODY), Unexplained.NOT_ASKED),
        (recorded(code=Code.POLICY_UNAVAILABLE), Unexplained.UNANSWERED),
    ],
)
def test_what_cannot_be_made_again_is_not_explained(one: RecordedDecision, why: Unexplained) -> None:
    assert Explainer().explain_recorded(one, [one_policy(OWNER)]) == NotExplained(why=why)


def test_a_decision_that_failed_then_fails_again() -> None:
    told = Explainer().explain_recorded(
        recorded("fails", code=Code.POLICY_ERROR, input=bytes(document("fails"))), [bundle()]
    )
    assert told == NotExplained(why=Unexplained.NO_TRACE, detail="authz.rego:9:31 cannot be evaluated")


def test_a_policy_that_cannot_be_compiled_is_not_explained() -> None:
    broken = bundle(policy="package sealbus.authz\n\ndecision := \n")
    told = Explainer().explain_recorded(recorded(), [broken])
    assert isinstance(told, NotExplained)
    assert (told.why, told.detail.partition(":")[0]) == (Unexplained.NO_TRACE, "authz.rego")


@pytest.mark.parametrize(
    ("said", "detail"), [({}, ""), (PolicyFailed("p.rego:1:1 cannot\nbe"), "p.rego:1:1 cannot\\nbe")]
)
def test_a_trace_that_answers_otherwise_is_not_shown(said: object, detail: str) -> None:
    class Lying(Interpreter):
        """Answers a question otherwise where it gathers prints."""

        def __init__(self, modules: Iterable[Module], data: bytes, *, gather: bool = False) -> None:
            super().__init__(modules, data, gather=gather)
            self._lies = gather

        def evaluate(self, rule: str, document: bytes) -> object:
            if not self._lies:
                return super().evaluate(rule, document)
            if isinstance(said, Exception):
                raise said
            return said

    assert Explainer(interpreter=Lying).explain(one_policy(OWNER), document()) == NotExplained(
        why=Unexplained.NO_TRACE, detail=detail
    )


class Made(Interpreter):
    """An interpreter that is noted when it is made."""

    all: ClassVar[list[Interpreter]] = []

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.all.append(self)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Interpreter]:
    monkeypatch.setattr(Made, "all", [])
    return Made.all


def test_an_interpreter_that_broke_is_made_again(made: list[Interpreter]) -> None:
    explainer, policy = Explainer(interpreter=Made), one_policy(OWNER)
    told = explainer.explain(policy, document())
    assert explainer.explain(policy, document()) == told
    assert len(made) == 2
    made[1].broken = True
    assert explainer.explain(policy, document()) == told
    assert len(made) == 4


def test_only_the_last_few_policies_are_kept(made: list[Interpreter]) -> None:
    explainer = Explainer(most=2, interpreter=Made)
    counts = []
    for revision in ("a", "b", "a", "c", "a", "b"):
        explainer.explain(one_policy(OWNER, revision=revision), document())
        counts.append(len(made))
    assert counts == [2, 4, 4, 6, 6, 8]


def test_a_file_without_prints_is_named() -> None:
    large = f"{OWNER}\n" + "unused if input.x == 1\n" * (MODULE_BYTES // 50)
    told = explained(one_policy(large), document())
    assert (told.rules, told.untraced) == ((), ("authz.rego",))


def test_a_long_trace_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "LINES", 2)
    told = explained(one_policy(OWNER), document())
    assert (len(told.rules), told.cut) == (2, True)


HOSTILE = "[bold red]x[/]\x1b[2J\u202egnp.exe\u2066\u200b\x00\n<script>"


def test_names_and_values_come_out_as_they_are_and_obey_nothing() -> None:
    key = '"[link]\u202e"'
    policy = f"""decide(request) := {ALLOWED} if {{
	request.action.properties[{key}] == request.action.properties.long
}} else := {{"allow": false, "reasons": ["a[/b]\u202e"], "obligations": [], "policy": "p"}}"""
    asked = document(properties={"[link]\u202e": HOSTILE, "long": "y" * 10_000, "list": list(range(20))})
    told = explained(one_policy(policy), asked)
    [literal] = [one.failed for one in told.rules if one.failed is not None]
    assert literal.looked[0].value is not None
    assert literal.looked[0].value.startswith('"[bold red]x[/]\\u001b[2J\\u202egnp.exe\\u2066\\u200b\\u0000\\n')
    assert len(literal.looked[1].value or "") == CHARACTERS
    everything = repr(told).replace("\\\\", "")
    assert told.reasons[0].reason == "a[/b]\\u202e"
    for text in (literal.written, *(part for one in literal.looked for part in (one.written, one.value or ""))):
        assert text.isprintable()
    assert "\u202e" not in everything


def test_long_lists_are_counted() -> None:
    text = f"decide(request) := {ALLOWED} if {{\n\trequest.action.properties.list == []\n}} else := {DENIED}"
    told = explained(one_policy(text), document(properties={"list": ["a"] * 9}))
    [literal] = [one.failed for one in told.rules if one.failed is not None]
    assert literal.looked == (Looked(written="request.action.properties.list", value="(9 items)"),)


HEADS = """package sealbus.authz

import data.sealbus.lib.rules

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed("shop") if {
	rules.in_order(request) == true
	small_enough(request) == true
} else := rules.denied("shop", request, {"too_much": small_enough(request), "too_late": in_time(request)})

small_enough(request) if {
	request.action.properties.quantity <= 3
} else := false

in_time(request) if {
	request.context.time < "2030"
} else := false
"""


def test_a_reason_with_a_name_in_a_head_points_at_its_rule(tmp_path: Path) -> None:
    """As policies on the library have them: `denied` is given an object of what is special."""
    shutil.copytree(STARTER, tmp_path / "policy", ignore=shutil.ignore_patterns("*_test.rego"))
    (tmp_path / "policy" / "sealbus" / "authz" / "decision.rego").write_text(HEADS)
    bundle = build_bundle(tmp_path / "policy")
    asked = json.loads(document("inventory.update"))
    asked["action"]["properties"]["quantity"] = 5
    told = explained(bundle, checked_document(json.dumps(asked, separators=(",", ":")).encode()))
    reasons = {one.reason: one.failed for one in told.reasons}
    [cause] = reasons["too_much"]
    assert (cause.file, cause.line) == ("sealbus/authz/decision.rego", 15)
    assert cause.looked == (Looked(written="request.action.properties.quantity", value="5"),)
    assert "too_late" not in reasons
