"""One decision as a page shows it: who asked, for whom and through whom, what the rules looked at, what came of it (pure).

Everything about the message is what its senders sealed and the record proves; what the policy looked at comes from making the
decision again. Values of the input document and of the policy's data are in it: who may see it is for the policy to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

from sealbus.agents.console.decisions.rows import OutcomeRow, shown_name
from sealbus.agents.console.documents import (
    AgainDocument,
    ApproverDocument,
    CheckDocument,
    DecisionDocument,
    ExplainedDocument,
    LinesDocument,
    LinkDocument,
    LoggedDocument,
    StepDocument,
    WordsDocument,
)
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.inspection.documents import explanation_document, shown_time
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.trust.names import Names
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.reasons import reason_words
from sealbus.policies.explain.explanation import ExplainedDecision, LiteralShown, NotExplained

AROUND: Final = 3
"""Lines of a policy that are shown before and after one that counts."""
SOURCE_LINES: Final = 400
"""Most lines of one file that are shown."""


def decision_document(
    entry: AuditEntry,
    outcome: OutcomeRow | None,
    *,
    names: Names,
    explanation: ExplainedDocument,
    again: AgainDocument | None,
    words: Sequence[WordsDocument],
    logged: LoggedDocument | None,
    receipt: str | None,
) -> DecisionDocument:
    """Return the decision in `entry` as JSON; `entry.record` must be a decision, and `entry.message` its message."""
    record, message = entry.record, entry.message
    if not isinstance(record, DecisionRecord) or message is None:
        raise ValueError("not a decision")
    header, context = message.header, message.context
    given = entry.input
    return {
        "record": {
            "sequence": entry.sequence,
            "leaf": entry.leaf.hex(),
            "time": shown_time(entry.stored),
            "recorder": entry.recorder.value,
            "name": shown_name(entry.recorder, names),
        },
        "message": {
            "id": header.id.hex(),
            "hash": header.digest.hex(),
            "action": record.action,
            "subject": header.to,
            "kind": header.kind.value,
            "sent": shown_time(header.iat),
            "expires": shown_time(header.exp),
            "trace": header.tid.hex() if header.tid is not None else "",
            "request": context.txn.hex() if context is not None else "",
            "delivery": record.delivery,
        },
        "allow": record.allow,
        "code": str(record.code or ""),
        "reasons": list(record.reasons),
        "words": list(words),
        "chain": _chain(entry, record, message, names),
        "acting": shown_name(header.iss, names),
        "owner": context.sub if context is not None else "",
        "approver": _approvers(given),
        "explanation": explanation,
        "input": given or None,
        "redacted": list(record.redacted),
        "looked": looked_at(explanation, given),
        "outcome": outcome.document() if outcome is not None else None,
        "timeline": _timeline(entry, record, header, outcome),
        "evidence": {
            "record": f"#{entry.sequence}",
            "signed_by": shown_name(entry.recorder, names),
            "logged": logged,
            "receipt": receipt,
        },
        "policy": {"name": record.policy or "", "revision": record.revision or "", "engine": record.engine or ""},
        "again": again,
    }


def explained_document(explained: ExplainedDecision | NotExplained, bundle: Bundle | None) -> ExplainedDocument:
    """Return an explanation as JSON, with the lines of the policy around those that count."""
    document = explanation_document(explained)
    if isinstance(explained, ExplainedDecision):
        document["sources"] = _sources(explained, bundle) if bundle is not None else {}
    return cast("ExplainedDocument", document)


def reason_documents(reasons: Sequence[str], bundle: Bundle | None) -> list[WordsDocument]:
    """Return the policy's own words for `reasons`; a reason without any stands alone."""
    words = reason_words(bundle) if bundle is not None else {}
    return [
        {
            "reason": reason,
            "title": found.title if (found := words.get(reason)) is not None else "",
            "remedy": found.remedy if found is not None else "",
        }
        for reason in reasons
    ]


def approval_queue(record: DecisionRecord) -> str:
    """Return the queue of people whom a denial asks for an approval; empty for every other decision."""
    if record.allow or not record.obligations:
        return ""
    try:
        obligations = json.loads(record.obligations)
    except ValueError:
        return ""
    for one in obligations if isinstance(obligations, list) else ():
        if isinstance(one, dict) and one.get("type") == "approval" and isinstance(queue := one.get("queue"), str):
            return queue
    return ""


def _chain(entry: AuditEntry, record: DecisionRecord, message: VerifiedDecided, names: Names) -> list[LinkDocument]:
    context = message.context
    links: list[LinkDocument] = []
    if context is not None:
        links += _user(context, message.chain[0], names)
    for link in message.chain:
        last = link is message.chain[-1]
        checks: list[CheckDocument] = [{"what": f"sealed {link.kind.value} to {link.to}", "ok": True}]
        if not last:
            checks.append({"what": "named by the hash of the next", "ok": True})
        links.append(
            {
                "role": "sender" if last else "hop",
                "name": shown_name(link.iss, names),
                "id": link.iss.value,
                "checks": checks,
                "time": shown_time(link.iat),
                "until": shown_time(link.exp),
                "key": link.key.raw.hex()[:16],
            }
        )
    verdict = "allowed" if record.allow else f"denied: {', '.join(record.reasons) or record.code}"
    links.append(
        {
            "role": "decider",
            "name": shown_name(entry.recorder, names),
            "id": entry.recorder.value,
            "checks": [{"what": f"policy: {verdict}", "ok": record.allow}],
            "time": shown_time(record.place.time),
        }
    )
    return links


def _user(context: UserContext, root: Header, names: Names) -> list[LinkDocument]:
    bound = shown_name(root.iss, names)
    return [
        {
            "role": "user",
            "name": context.sub,
            "idp": context.idp,
            "client": context.cid,
            "login": shown_time(context.aut) if context.aut is not None else "",
            "acr": context.acr or "",
            "type": context.typ.value if context.typ is not None else "user",
        },
        {
            "role": "minter",
            "name": shown_name(context.iss, names),
            "id": context.iss.value,
            "checks": [{"what": f"user context signed, bound to {bound}", "ok": True}],
            "until": shown_time(context.end),
        },
    ]


def _approvers(given: Mapping[str, object]) -> list[ApproverDocument]:
    context = given.get("context")
    approvals = context.get("approvals") if isinstance(context, dict) else None
    found: list[ApproverDocument] = []
    for one in approvals if isinstance(approvals, list) else ():
        if isinstance(one, dict):
            user = one.get("user")
            name = user.get("id") if isinstance(user, dict) else user
            found.append({"user": str(name or ""), "verdict": str(one.get("verdict", "")), "time": one.get("time")})
    return found


def _timeline(
    entry: AuditEntry, record: DecisionRecord, header: Header, outcome: OutcomeRow | None
) -> list[StepDocument]:
    place = record.place
    arrived = f"stored in {place.stream}" if isinstance(place, StreamPlace) else "received"
    steps: list[tuple[str, int]] = [("sent", header.iat), (arrived, place.time)]
    if record.micros is not None:
        steps.append((f"policy asked, {record.engine}: {record.micros / 1_000:.2f} ms", place.time))
    steps.append(("recorded", entry.stored))
    found: list[StepDocument] = [{"what": what, "time": shown_time(time)} for what, time in steps]
    if outcome is not None:
        found.append({"what": f"handled: {outcome.code}", "ms": outcome.micros / 1_000})
    elif not record.allow:
        found.append({"what": "not handled"})
    return found


def looked_at(explanation: ExplainedDocument, given: Mapping[str, object]) -> list[str]:
    """Return the dotted paths of `given`, the input document, whose values the rules that count looked at.

    A rule names them by its own words, `user.id` for instance: a path counts if it ends with these, less their first at most,
    and has the value that was looked at.
    """
    looked: set[tuple[str, str | None]] = set()
    for reason in explanation.get("reasons", ()):
        for literal in (*reason["failed"], *reason["held"]):
            for one in literal["looked"]:
                looked |= {(name, one["value"]) for name in _endings(one["written"])}
    return [
        path
        for path, value in _paths(given)
        if any((path == name or path.endswith(f".{name}")) and said in (None, value) for name, said in looked)
    ]


def _endings(written: str) -> tuple[str, ...]:
    _, _, rest = written.partition(".")
    return (written, rest) if rest and "." in rest else (written,) if rest else ()


def _paths(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted path of every value that is no object, with the value as JSON."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _paths(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _sources(told: ExplainedDecision, bundle: Bundle) -> dict[str, LinesDocument]:
    """Return the lines around each literal that counts, by file."""
    lines: dict[str, set[int]] = {}
    for literal in _counting(told):
        lines.setdefault(literal.file, set()).add(literal.line)
    found: dict[str, LinesDocument] = {}
    for module in bundle.modules:
        if wanted := lines.get(module.path):
            text = module.text.split("\n")
            first = max(1, min(wanted) - AROUND)
            last = min(len(text), max(wanted) + AROUND, first + SOURCE_LINES)
            found[module.path] = {"first": first, "lines": text[first - 1 : last]}
    return found


def _counting(told: ExplainedDecision) -> Iterable[LiteralShown]:
    for reason in told.reasons:
        yield from reason.failed
        yield from reason.held
    for rule in told.rules:
        if rule.failed is not None:
            yield rule.failed
