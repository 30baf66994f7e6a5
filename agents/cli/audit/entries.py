"""Audit entries as lines for people and as JSON."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

import click

from sealbus.agents.cli.output import as_mapping, note, print_json
from sealbus.bus.audit.trail import AuditEntry, Finding
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.message.fields import ExtValue
from sealbus.envelopes.printable import printable
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.operation import ChangeRecord, ConnectionsRecord, ProcessRecord
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord


def print_entry(entry: AuditEntry | Finding, *, as_json: bool, name: str = "") -> int:
    """Print one entry, or a finding (for people on stderr); return 1 for a finding, otherwise 0.

    Of several cells `name` says which one it is of: the workload that read it.
    """
    where: dict[str, object] = {"as": name} if name else {}
    before = printable(f"{name}  ") if name else ""
    if isinstance(entry, Finding):
        if as_json:
            print_json(
                {
                    "kind": "finding",
                    "sequence": entry.sequence,
                    "time": shown_time(entry.stored),
                    "subject": entry.subject,
                    "code": entry.code,
                    "step": entry.step,
                    "detail": entry.detail,
                    **where,
                }
            )
        else:
            note(
                f"{before}{shown_time(entry.stored)} #{entry.sequence} DOES NOT VERIFY: {entry.code} at step {entry.step}"
            )
        return 1
    if as_json:
        print_json({**as_document(entry), **where})
    else:
        click.echo(before + printable(as_line(entry)))
    return 0


def as_document(entry: AuditEntry) -> Mapping[str, object]:
    """Return one entry as the JSON object that `--json` prints."""
    base: dict[str, object] = {
        "kind": entry.record.kind,
        "sequence": entry.sequence,
        "time": shown_time(entry.stored),
        "recorder": str(entry.recorder),
        "record": entry.leaf.hex(),
    }
    if isinstance(entry.record, DecisionRecord):
        record = entry.record
        base |= {**decision_facts(record), "input": entry.input, "redacted": list(record.redacted)}
        if record.body is not None:
            base["body"] = b64encode(record.body).decode()
    elif isinstance(entry.record, OutcomeRecord):
        base |= {
            "decision": entry.record.decision.hex(),
            "code": str(entry.record.code or ""),
            "micros": entry.record.micros,
            "sent": [digest.hex() for digest in entry.record.sent],
        }
        if entry.decision is not None:
            base["action"] = entry.decision.action
    elif isinstance(entry.record, DenialsRecord):
        base |= {
            "from": str(entry.record.iss),
            "minute": shown_time(entry.record.minute),
            "counts": {str(code): count for code, count in sorted(entry.record.counts.items())},
        }
    elif isinstance(entry.record, ChangeRecord):
        base |= {
            "action": str(entry.record.action),
            "part": entry.record.part,
            "serial": entry.record.serial,
            "sha256": entry.record.digest.hex(),
            "target": entry.record.target,
            "reason": entry.record.reason,
        }
    elif isinstance(entry.record, ProcessRecord):
        base |= {
            "action": str(entry.record.action),
            "instance": entry.record.instance.hex(),
            "version": entry.record.version,
            "facts": {name: _plain(fact) for name, fact in entry.record.facts.items()},
        }
    elif isinstance(entry.record, ConnectionsRecord):
        base |= {
            "minute": shown_time(entry.record.minute),
            "counts": {str(code): count for code, count in sorted(entry.record.counts.items())},
        }
    if entry.decided is not None:
        base |= {
            "message": entry.decided.id.hex(),
            "hash": entry.decided.digest.hex(),
            "txn": entry.txn.hex() if entry.txn is not None else "",
            "from": str(entry.decided.iss),
            "subject": entry.decided.to,
        }
    return base


def decision_facts(record: DecisionRecord) -> dict[str, object]:
    """Return what a decision says, and by which policy, as members of its JSON object."""
    return {
        "action": record.action,
        "allow": record.allow,
        "code": str(record.code or ""),
        "reasons": list(record.reasons),
        "obligations": record.obligations.decode(errors="replace"),
        "policy": record.policy or "",
        "revision": record.revision or "",
        "engine": record.engine or "",
    }


def as_line(entry: AuditEntry) -> str:
    """Return one entry as one line for people: time, verdict, action, sender, user and reasons."""
    head = f"{shown_time(entry.stored)} #{entry.sequence:<5}"
    sender = entry.decided.iss.path if entry.decided is not None else ""
    if isinstance(entry.record, DecisionRecord):
        record = entry.record
        verdict = "ALLOW" if record.allow else "DENY "
        user = _user_text(as_mapping(as_mapping(entry.input.get("context")).get("user")))
        why = ", ".join(record.reasons) or (str(record.code or ""))
        return f"{head} {verdict} {record.action:<24} from {sender:<20} for {user:<10} {why}".rstrip()
    if isinstance(entry.record, OutcomeRecord):
        action = entry.decision.action if entry.decision is not None else "?"
        result = str(entry.record.code or "done")
        return f"{head} -> {result:<8} {action:<18} in {entry.record.micros / 1000:.1f} ms"
    if isinstance(entry.record, DenialsRecord):
        counts = ", ".join(f"{count} {code}" for code, count in sorted(entry.record.counts.items()))
        minute = shown_time(entry.record.minute)
        verdict = "DENY " if entry.record.denied else "ALLOW"
        return f"{head} {verdict} {counts} more from {entry.record.iss.path} in the minute of {minute}, only counted"
    by = f"by {entry.recorder.path}"
    if isinstance(entry.record, ChangeRecord):
        change = entry.record
        what = f"{change.part} {change.serial}" + (f" {change.target}" if change.target else "")
        return f"{head} CHANGE {change.action} {what} {by} {change.reason}".rstrip()
    if isinstance(entry.record, ProcessRecord):
        return f"{head} {entry.record.action.upper()} of {entry.record.instance.hex()} {by}, sealbus {entry.record.version}"
    if isinstance(entry.record, ConnectionsRecord):
        counts = ", ".join(f"{count} {code}" for code, count in sorted(entry.record.counts.items()))
        return f"{head} REFUSED connections {by} in the minute of {shown_time(entry.record.minute)}: {counts}"
    return f"{head} {entry.record.kind} {by}"


def _plain(fact: ExtValue) -> ExtValue:
    """Return a declared fact as JSON has it: bytes, such as a hash, in hex."""
    return fact.hex() if isinstance(fact, bytes) else fact


def _user_text(user: Mapping[str, object]) -> str:
    """Return the user; for another protocol than the edge's own, also the client and the door."""
    door = as_mapping(user.get("claims")).get("door")
    return f"{user.get('id') or '-'}" + (f" by {user.get('client')} via {door}" if door else "")
