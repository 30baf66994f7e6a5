"""`sealbus audit show ID`: one message with its chain as a tree, the decision, the outcomes and the proofs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.audit.source import EvidenceSource, source_options
from sealbus.agents.cli.output import note, print_json
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from rich.tree import Tree

    from sealbus.agents.evidence.lookup import FoundRecord, Lookup, VerifiedDecision, VerifiedRecords
    from sealbus.envelopes.export.approvals import ApprovalEntry


_UNVERIFIED = 4
_WIDE = 1_000_000


@click.command("show")
@click.argument("wanted", metavar="ID")
@source_options
def show(wanted: str, source: EvidenceSource) -> int:
    """Show the message ID (32 hex digits), or the message or record with a hash (64): everything is verified again."""
    from sealbus.agents.evidence.lookup import identifier, look_up, verify_lookup
    from sealbus.envelopes.errors import ConfigurationError

    name = identifier(wanted)
    trusted = source.trusted_root()
    with source.opened(trusted) as files:
        lookup = look_up(files, trusted, name)
    records = verify_lookup(lookup, trusted)
    if not lookup.found:
        raise ConfigurationError(f"this log has nothing about {wanted}")
    if source.invocation.as_json:
        for decision in records.decisions:
            print_json(as_document(decision, lookup))
        for record in records.others:
            print_json(_place(record, lookup) | {"kind": record.record.kind})
    else:
        _print(records, lookup)
    for record, error in records.refused:
        note(f"#{record.frame.sequence} DOES NOT VERIFY: {error}")
    return _UNVERIFIED if records.refused else 0


def as_document(decision: VerifiedDecision, lookup: Lookup) -> dict[str, object]:
    """Return one decision and everything about it, as `--json` prints it."""
    from sealbus.agents.cli.audit.entries import decision_facts

    header, record, context = decision.decided.header, decision.record, decision.decided.context
    return {
        "kind": "decision",
        "message": header.id.hex(),
        "hash": header.digest.hex(),
        "subject": header.to,
        "chain": [
            {"from": str(link.iss), "to": link.to, "time": shown_time(link.iat)} for link in decision.decided.chain
        ],
        "user": {"id": context.sub, "idp": context.idp, "session": context.sid} if context is not None else None,
        "recorder": str(decision.recorder),
        **decision_facts(record),
        "delivery": record.delivery,
        "approvals": [
            {
                "verdict": approval.verdict,
                "user": approval.user,
                "idp": approval.idp,
                "session": approval.session,
                "client": approval.client,
                "acr": approval.acr,
                "auth_time": approval.auth_time,
                "time": approval.time,
                "message": approval.message.hex(),
                "record": approval.record.hex(),
            }
            for approval in _approvals(decision)
        ],
        "outcomes": [
            _place(outcome.found, lookup) | {"code": str(outcome.record.code or ""), "micros": outcome.record.micros}
            for outcome in decision.outcomes
        ],
        **_place(decision.found, lookup),
    }


def _place(record: FoundRecord, lookup: Lookup) -> dict[str, object]:
    """Return a record's place in the log, where its proof begins."""
    return {
        "record": record.leaf.hex(),
        "sequence": record.frame.sequence,
        "time": shown_time(record.frame.stored),
        "entry": record.index,
        "item": record.item,
        "size": lookup.checkpoint.checkpoint.size,
    }


def _approvals(decision: VerifiedDecision) -> Sequence[ApprovalEntry]:
    """Return the approvals that an allowed decision names. `sealbus audit verify` checks whether they were given."""
    from sealbus.envelopes.export.approvals import approvals_of

    if not decision.record.allow or decision.record.input is None:
        return ()
    try:
        return approvals_of(decision.record.input)
    except ValueError:
        return ()


def _print(records: VerifiedRecords, lookup: Lookup) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        # A file or a pipe gets whole lines.
        console.width = _WIDE
    for decision in records.decisions:
        console.print(as_tree(decision))
    for record in records.others:
        console.print(printable(f"{record.record.kind} {_proof(record)}"), markup=False)
    checkpoint = lookup.checkpoint.checkpoint
    summary = f"log {checkpoint.origin}: {checkpoint.size} entries, root {checkpoint.root.hex()}"
    console.print(printable(summary), markup=False)


def as_tree(decision: VerifiedDecision) -> Tree:
    """Return the chain of one decided message as a tree, from its root down to the outcomes."""
    from rich.text import Text
    from rich.tree import Tree

    def line(text: str) -> Text:
        return Text(printable(text))

    header, record, context = decision.decided.header, decision.record, decision.decided.context
    user = f"{context.sub} of {context.idp}, session {context.sid}" if context is not None else "nobody"
    top = branch = Tree(line(f"message {header.id.hex()} for {user}"))
    for link in decision.decided.chain:
        branch = branch.add(line(f"{shown_time(link.iat)} {link.iss.value} -> {link.to}"))
    verdict = "ALLOW" if record.allow else f"DENY {record.code}"
    why = f" ({', '.join(record.reasons)})" if record.reasons else ""
    by = f" by {record.policy} {record.revision}, {record.engine}" if record.engine is not None else ""
    branch = branch.add(line(f"{verdict} {record.action}{why}{by}"))
    for approval in _approvals(decision):
        branch.add(line(_approved(approval)))
    branch.add(line(f"recorded by {decision.recorder.value} {_proof(decision.found)}"))
    for outcome in decision.outcomes:
        result = str(outcome.record.code or "done")
        branch.add(line(f"{result} in {outcome.record.micros / 1000:.1f} ms {_proof(outcome.found)}"))
    return top


def _approved(approval: ApprovalEntry) -> str:
    """Return a line with the person's verdict, time and login, and the record of it."""
    verdict = "approved" if approval.verdict == "approve" else "denied"
    level = f" by {approval.acr}" if approval.acr else ""
    since = f" at {shown_time(approval.auth_time * SECOND)}" if approval.auth_time else ""
    login = f", logged in{level}{since}" if level or since else ""
    where = f"[message {approval.message.hex()}, record {approval.record.hex()}]"
    return f"{approval.time} {verdict} by {approval.user} of {approval.idp}, session {approval.session}{login} {where}"


def _proof(record: FoundRecord) -> str:
    return f"[#{record.frame.sequence}, entry {record.index}, record {record.leaf.hex()}]"
