"""Explanations of past decisions: a policy with added prints makes the decision again and shows how it comes about.

::

    explainer = Explainer()
    explanation = explainer.explain(bundle, document)             # an input document
    explanation = explainer.explain_recorded(recorded, bundles)   # a recorded decision, by the policies of its revision

An explanation shows values of the input document and of the policy's data. Show it only to people who may read both. Control
characters in its texts are made visible. Nothing here is logged, and the decision does not change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.printable import printable
from sealbus.envelopes.trust.caches import BoundedMap
from sealbus.policies.backtest.recorded import NotReplayable, RecordedDecision, changes_of
from sealbus.policies.bundle.check import DECISION
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.reasons import ReasonWords, reason_words
from sealbus.policies.decision.approval import APPROVAL, approval_of
from sealbus.policies.decision.decision import Decision, parse_decision
from sealbus.policies.decision.documents import InputDocument, canonical
from sealbus.policies.decision.engine import Answer
from sealbus.policies.explain.rewriting import CHARACTERS, Rewritten, rewrite
from sealbus.policies.explain.trace import UNDEFINED, BodyTried, LiteralTried, Value, causes, read_prints
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.lint.regorus import Interpreter

KEPT: Final = 4
"""Most rewritten policies that an explainer keeps. A new one replaces the least recently used one."""
LINES: Final = 500
"""Most bodies that one explanation lists. A decision over long lists may evaluate more."""


class Unexplained(StrEnum):
    """Why a decision is not explained."""

    NOT_ASKED = "not_asked"
    UNANSWERED = "unanswered"
    NO_INPUT = "no_input"
    REDACTED = "redacted"
    BAD_INPUT = "bad_input"
    NO_POLICY = "no_policy"
    """The policy of the decision's revision is not archived, or is refused today."""
    OTHER_RESULT = "other_result"
    """The archived policy makes another decision than the recorded one."""
    NO_TRACE = "no_trace"
    """With added prints the policy fails, or gives another answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotExplained:
    """There is no explanation; `detail` is for people and may be empty."""

    why: Unexplained
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A reference in a literal, as written, and its value as JSON, at most 200 characters; None if it was undefined.

    Objects are left out.
    """

    written: str
    value: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiteralShown:
    """A literal of a policy, as written, and the values of its references; `file` is its path in the bundle."""

    file: str
    line: int
    written: str
    looked: tuple[Looked, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleShown:
    """One evaluated body of a rule: whether it held, and if not, the literal that failed. `depth` counts the outer bodies.

    The body of an `every` is listed under its rule, once for each element.
    """

    rule: str
    file: str
    line: int
    depth: int
    held: bool
    failed: LiteralShown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonShown:
    """A reason of the decision, and the literals that caused it because they failed, or because they held.

    There are no literals if the policy does not show the cause, for instance of a reason that it computes from data. `title`
    and `remedy` are the policy's own words for the reason, empty if it has none.
    """

    reason: str
    title: str = ""
    remedy: str = ""
    failed: tuple[LiteralShown, ...] = ()
    held: tuple[LiteralShown, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedDecision:
    """One decision and how it came about. `cut` is set if bodies are left out; `untraced` names the files without prints."""

    revision: str
    policy: str
    allow: bool
    reasons: tuple[ReasonShown, ...]
    rules: tuple[RuleShown, ...]
    cut: bool = False
    untraced: tuple[str, ...] = ()
    queue: str = ""
    """The queue in which a task waits for the approval that a denial asks for; empty for none."""
    asked: str = ""
    """The question to people in this queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traced:
    """A policy unchanged, and with added prints."""

    bundle: Bundle
    written: Rewritten
    plain: Interpreter
    printing: Interpreter

    @property
    def broken(self) -> bool:
        return self.plain.broken or self.printing.broken


class Explainer:
    """Explains decisions in the thread that made it. Keeps the last few rewritten policies by revision and hash."""

    def __init__(self, *, most: int = KEPT, interpreter: type[Interpreter] = Interpreter) -> None:
        self._interpreter = interpreter
        self._recent: BoundedMap[tuple[str, bytes], _Traced] = BoundedMap(most)

    def explain(
        self, bundle: Bundle, document: InputDocument, *, of_approval: bool = False
    ) -> ExplainedDecision | NotExplained:
        """Explain the decision of `bundle`, which passed `check_bundle`, on `document`.

        With `of_approval` the rule for approvers decides. The first time for a policy, this blocks for a moment.
        """
        explanation, _ = self._ask(bundle, document, APPROVAL if of_approval else DECISION)
        return explanation

    def explain_recorded(
        self, recorded: RecordedDecision, bundles: Iterable[Bundle]
    ) -> ExplainedDecision | NotExplained:
        """Explain a recorded decision by making it again with one of `bundles`, those of its revision.

        The decision is explained only if it is the same as the recorded one.
        """
        document = recorded.question()
        if isinstance(document, NotReplayable):
            return NotExplained(why=Unexplained(document.value))
        rule = APPROVAL if recorded.of_approval else DECISION
        explanation: ExplainedDecision | NotExplained = NotExplained(why=Unexplained.NO_POLICY)
        for bundle in bundles:
            attempt, answer = self._ask(bundle, document, rule)
            changes = () if answer is None else changes_of(recorded, answer)
            if answer is not None and not changes:
                return attempt
            explanation = NotExplained(why=Unexplained.OTHER_RESULT, detail=", ".join(changes)) if changes else attempt
        return explanation

    def _ask(
        self, bundle: Bundle, document: InputDocument, rule: str
    ) -> tuple[ExplainedDecision | NotExplained, Answer | None]:
        """Return the explanation, and the decision of the unchanged policy; None if the policy could not decide."""
        try:
            traced = self._traced(bundle)
        except PolicyRefused as error:
            return _untraced(error), None
        try:
            result = traced.plain.evaluate(rule, document)
            decision = parse_decision(result, revision=bundle.revision, engine="embedded", micros=0)
        except PolicyFailed as error:
            return _untraced(error), PolicyFailed(error.detail)
        try:
            again = traced.printing.evaluate(rule, document)
        except PolicyFailed as error:
            return _untraced(error), decision
        finally:
            prints = traced.printing.prints()
        if again != result:
            return NotExplained(why=Unexplained.NO_TRACE), decision
        presenter = _Presenter(written=traced.written, words=reason_words(bundle))
        return presenter.present(read_prints(prints, traced.written), decision), decision

    def _traced(self, bundle: Bundle) -> _Traced:
        key = bundle.revision, bundle.digest
        traced = self._recent.get(key)
        if traced is None or traced.broken:
            data = canonical(bundle.data)
            written = rewrite(bundle.modules, bundle.data.keys())
            traced = _Traced(
                bundle=bundle,
                written=written,
                plain=self._interpreter(bundle.modules, data),
                printing=self._interpreter(written.modules, data, gather=True),
            )
            self._recent.put(key, traced)
        return traced


def _untraced(error: PolicyRefused | PolicyFailed) -> NotExplained:
    return NotExplained(why=Unexplained.NO_TRACE, detail=printable(error.detail))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Presenter:
    """Presents a trace as an explanation."""

    written: Rewritten
    words: Mapping[str, ReasonWords]

    def present(self, roots: Sequence[BodyTried], decision: Decision) -> ExplainedDecision:
        rules: list[RuleShown] = []
        cut = False
        for depth, body in _every_body(roots):
            if len(rules) == LINES:
                cut = True
                break
            rules.append(self.rule(body, depth))
        approval = None if decision.allow else approval_of(decision.obligations)
        return ExplainedDecision(
            revision=printable(decision.revision),
            policy=printable(decision.policy),
            allow=decision.allow,
            reasons=tuple(self.reason(reason, roots) for reason in decision.reasons),
            rules=tuple(rules),
            cut=cut,
            untraced=self.written.untraced,
            queue=approval.queue if approval is not None else "",
            asked=printable(approval.text) if approval is not None else "",
        )

    def rule(self, body: BodyTried, depth: int) -> RuleShown:
        written = self.written.bodies[body.body]
        failed = None if body.held else next((literal for literal in reversed(body.literals) if literal.failed), None)
        return RuleShown(
            rule=printable(".".join(written.rule)),
            file=written.file,
            line=written.line,
            depth=depth,
            held=body.held,
            failed=self.literal(failed) if failed is not None else None,
        )

    def reason(self, reason: str, roots: Sequence[BodyTried]) -> ReasonShown:
        """Return the causes of `reason`: literals that failed for its named value, or that held in the body that gives it."""
        failed: list[LiteralTried] = []
        held: list[LiteralTried] = []
        for _, body in _every_body(roots):
            if body.held and reason in self.written.bodies[body.body].texts:
                held += [literal for literal in body.literals if literal.held]
                for literal in body.literals:
                    failed += causes(literal.bodies, self.written) if self.written.sites[literal.site].negation else ()
            for literal in body.literals:
                for name, bodies in literal.named:
                    failed += causes(bodies, self.written) if name == reason else ()
        if not failed and not held:
            rules = self.written.heads.get(reason, frozenset())
            ran = [body for _, body in _every_body(roots) if self.written.bodies[body.body].rule in rules]
            failed += causes(ran, self.written)
        words = self.words.get(reason)
        return ReasonShown(
            reason=printable(reason),
            title=printable(words.title) if words is not None else "",
            remedy=printable(words.remedy) if words is not None else "",
            failed=self.literals(failed),
            held=self.literals(held),
        )

    def literals(self, literals: Iterable[LiteralTried]) -> tuple[LiteralShown, ...]:
        return tuple(dict.fromkeys(map(self.literal, literals)))

    def literal(self, literal: LiteralTried) -> LiteralShown:
        site = self.written.sites[literal.site]
        looked = zip(site.shown, literal.values, strict=False)
        return LiteralShown(
            file=site.file,
            line=site.line,
            written=_cut(printable(" ".join(site.written.split()))),
            looked=tuple(
                Looked(written=_cut(printable(name)), value=_shown(value))
                for name, value in looked
                if not (isinstance(value, dict) and "members" in value)
            ),
        )


def _every_body(bodies: Iterable[BodyTried], depth: int = 0) -> Iterator[tuple[int, BodyTried]]:
    for body in bodies:
        yield depth, body
        for literal in body.literals:
            yield from _every_body(literal.bodies, depth + 1)


def _shown(value: Value) -> str | None:
    if value is UNDEFINED:
        return None
    if isinstance(value, dict):
        return f"({value['items']} items)"
    return _cut(printable(json.dumps(value, ensure_ascii=False)))


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 3]}..."
