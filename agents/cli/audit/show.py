"""`sealbus audit show ID`: one message with its chain as a tree, the decision, the outcomes and the proofs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.audit.source import opened_source, source_options, trusted_root
from sealbus.agents.cli.options import json_option
from sealbus.agents.cli.output import note, print_json, printable, shown_time
from sealbus.envelopes.limits import SECOND

if TYPE_CHECKING:
    from rich.tree import Tree

    from sealbus.agents.evidence.lookup import FoundRecord, Lookup, VerifiedDecision, VerifiedRecords
    from sealbus.envelopes.export.approvals import ApprovalEntry

__all__ = ["show"]

_UNVERIFIED = 4
_WIDE = 1_000_000


@click.command("show")
@click.argument("wanted", metavar="ID")
@source_options
@json_option
def show(
    wanted: str,
    root: Path | None,
    export: Path | None,
    log_folder: Path | None,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Show the message ID (32 hex digits), or the message or record with a hash (64): everything is verified again."""
    from sealbus.agents.evidence.lookup import identifier, look_up, verify_lookup
    from sealbus.envelopes.errors import ConfigurationError

    name = identifier(wanted)
    trusted = trusted_root(root, live=export is None, log_folder=log_folder, config=config)
    with opened_source(export, log_folder, config, as_name, trusted) as files:
        lookup = look_up(files, trusted, name)
    told = verify_lookup(lookup, trusted)
    if not lookup.found:
        raise ConfigurationError(f"this log has nothing about {wanted}")
    if as_json:
        for decision in told.decisions:
            print_json(as_document(decision, lookup))
        for found in told.others:
            print_json(_place(found, lookup) | {"kind": found.record.kind})
    else:
        _print(told, lookup)
    for found, error in told.refused:
        note(f"#{found.frame.sequence} DOES NOT VERIFY: {error}")
    raise SystemExit(_UNVERIFIED if told.refused else 0)


def as_document(told: VerifiedDecision, lookup: Lookup) -> dict[str, object]:
    """Return one decision and everything about it, as `--json` prints it."""
    header, record, context = told.decided.header, told.record, told.decided.context
    return {
        "kind": "decision",
        "message": header.id.hex(),
        "hash": header.digest.hex(),
        "subject": header.to,
        "chain": [{"from": str(one.iss), "to": one.to, "time": shown_time(one.iat)} for one in told.decided.chain],
        "user": {"id": context.sub, "idp": context.idp, "session": context.sid} if context is not None else None,
        "recorder": str(told.recorder),
        "action": record.action,
        "allow": record.allow,
        "code": str(record.code or ""),
        "reasons": list(record.reasons),
        "obligations": record.obligations.decode(errors="replace"),
        "policy": record.policy or "",
        "revision": record.revision or "",
        "engine": record.engine or "",
        "delivery": record.delivery,
        "approvals": [
            {
                "verdict": one.verdict,
                "user": one.user,
                "idp": one.idp,
                "session": one.session,
                "client": one.client,
                "acr": one.acr,
                "auth_time": one.auth_time,
                "time": one.time,
                "message": one.message.hex(),
                "record": one.record.hex(),
            }
            for one in _approvals(told)
        ],
        "outcomes": [
            _place(one.found, lookup) | {"code": str(one.record.code or ""), "micros": one.record.micros}
            for one in told.outcomes
        ],
        **_place(told.found, lookup),
    }


def _place(found: FoundRecord, lookup: Lookup) -> dict[str, object]:
    """Return a record's place in the log, where its proof begins."""
    return {
        "record": found.leaf.hex(),
        "sequence": found.frame.sequence,
        "time": shown_time(found.frame.stored),
        "entry": found.index,
        "item": found.item,
        "size": lookup.checkpoint.checkpoint.size,
    }


def _approvals(told: VerifiedDecision) -> Sequence[ApprovalEntry]:
    """Return what an allowed decision says that it rests on; whether that was said, `sealbus audit verify` finds out."""
    from sealbus.envelopes.export.approvals import approvals_of

    if not told.record.allow or told.record.input is None:
        return ()
    try:
        return approvals_of(told.record.input)
    except ValueError:
        return ()


def _print(told: VerifiedRecords, lookup: Lookup) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        # Readers of a file or a pipe want whole lines.
        console.width = _WIDE
    for decision in told.decisions:
        console.print(as_tree(decision))
    for found in told.others:
        console.print(printable(f"{found.record.kind} {_proof(found)}"), markup=False)
    checkpoint = lookup.checkpoint.checkpoint
    said = f"log {checkpoint.origin}: {checkpoint.size} entries, root {checkpoint.root.hex()}"
    console.print(printable(said), markup=False)


def as_tree(told: VerifiedDecision) -> Tree:
    """Return the chain of one decided message as a tree: who sent what to whom, down to the outcomes."""
    from rich.text import Text
    from rich.tree import Tree

    def line(text: str) -> Text:
        return Text(printable(text))

    header, record, context = told.decided.header, told.record, told.decided.context
    user = f"{context.sub} of {context.idp}, session {context.sid}" if context is not None else "nobody"
    top = branch = Tree(line(f"message {header.id.hex()} for {user}"))
    for link in told.decided.chain:
        branch = branch.add(line(f"{shown_time(link.iat)} {link.iss.value} -> {link.to}"))
    verdict = "ALLOW" if record.allow else f"DENY {record.code}"
    why = f" ({', '.join(record.reasons)})" if record.reasons else ""
    by = f" by {record.policy} {record.revision}, {record.engine}" if record.engine is not None else ""
    branch = branch.add(line(f"{verdict} {record.action}{why}{by}"))
    for approval in _approvals(told):
        branch.add(line(_approved(approval)))
    branch.add(line(f"recorded by {told.recorder.value} {_proof(told.found)}"))
    for one in told.outcomes:
        result = str(one.record.code) if one.record.code else "done"
        branch.add(line(f"{result} in {one.record.micros / 1000:.1f} ms {_proof(one.found)}"))
    return top


def _approved(one: ApprovalEntry) -> str:
    """Return who said what about it, when and by which login, and where that is recorded."""
    said = "approved" if one.verdict == "approve" else "denied"
    level = f" by {one.acr}" if one.acr else ""
    since = f" at {shown_time(one.auth_time * SECOND)}" if one.auth_time else ""
    login = f", logged in{level}{since}" if level or since else ""
    where = f"[message {one.message.hex()}, record {one.record.hex()}]"
    return f"{one.time} {said} by {one.user} of {one.idp}, session {one.session}{login} {where}"


def _proof(found: FoundRecord) -> str:
    return f"[#{found.frame.sequence}, entry {found.index}, record {found.leaf.hex()}]"
