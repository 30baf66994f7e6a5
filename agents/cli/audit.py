"""`sealbus audit`: what was decided, why, and what came of it, in order, each record verified."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping

import click

from sealbus.agents.cli.audit_export import export, root_file
from sealbus.agents.cli.audit_receipt import receipt
from sealbus.agents.cli.audit_show import show
from sealbus.agents.cli.audit_stats import stats
from sealbus.agents.cli.audit_verify import verify
from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import as_mapping, note, print_json, printable, shown_time
from sealbus.agents.cli.reveal import command as reveal
from sealbus.agents.cli.times import Moment
from sealbus.bus.audit_trail import AuditEntry, AuditFilter, Finding
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.work_records import DenialsRecord, OutcomeRecord

__all__ = ["as_document", "as_line", "command", "print_entry"]


@click.group("audit")
def command() -> None:
    """Follow and replay the audit stream; export, verify and look into the log of it."""


for _subcommand in (export, verify, receipt, show, stats, root_file):
    command.add_command(_subcommand)


command.add_command(reveal)


_stream_option = click.option(
    "--stream", default=None, metavar="NAME", help="A former period's stream; the current one unless said."
)


@command.command("tail")
@click.option("--follow", is_flag=True, help="Wait for more.")
@click.option("--last", default=20, show_default=True, type=click.IntRange(0, 10_000), help="Records to begin with.")
@_stream_option
@config_option
@as_option("operator")
@json_option
def tail(follow: bool, last: int, stream: str | None, config: str | None, as_name: str, as_json: bool) -> None:
    """Show the newest records."""
    shown = _show(AuditFilter(), config, as_name, as_json=as_json, follow=follow, last=last, stream=stream)
    raise SystemExit(asyncio.run(shown))


@command.command("replay")
@click.option("--since", type=Moment(), default=None, help="From this time on: RFC 3339, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), default=None, help="Before this time.")
@click.option("--subject", default=None, help="Only messages to this subject.")
@click.option("--agent", default=None, help="Only what this agent recorded.")
@click.option("--decision", type=click.Choice(["allow", "deny"]), default=None)
@click.option("--user", default=None, help="Only what was asked for this user.")
@click.option("--follow", is_flag=True, help="Wait for more.")
@click.option(
    "--into",
    default=None,
    metavar="MODULE:AGENT",
    help="Give the messages that TASKS still holds to this agent's handlers again, for debugging: nothing is sent, "
    "acknowledged or recorded, and ctx.replay is true.",
)
@click.option("--last", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Messages for --into.")
@_stream_option
@config_option
@as_option("operator")
@json_option
def replay(
    since: int | None,
    until: int | None,
    subject: str | None,
    agent: str | None,
    decision: str | None,
    user: str | None,
    follow: bool,
    into: str | None,
    last: int,
    stream: str | None,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Print in order what was decided, why, and what came of it."""
    wanted = AuditFilter(since=since or 0, until=until, subject=subject, agent=agent, decision=decision, user=user)
    if into is None:
        shown = _show(wanted, config, as_name, as_json=as_json, follow=follow, last=None, stream=stream)
        raise SystemExit(asyncio.run(shown))
    from sealbus.agents.cli.replay_into import replay_into

    if follow:
        raise click.UsageError("--into replays what is stored, and does not follow")
    raise SystemExit(asyncio.run(replay_into(into, wanted, config, as_name, most=last, as_json=as_json, stream=stream)))


async def _show(
    wanted: AuditFilter,
    config: str | None,
    as_name: str,
    *,
    as_json: bool,
    follow: bool,
    last: int | None,
    stream: str | None,
) -> int:
    from sealbus.agents.runtime import open_audit_trail
    from sealbus.agents.settings import load_settings

    findings = 0
    async with open_audit_trail(as_name, load_settings(config).for_command(), stream=stream) as trail:
        held: list[AuditEntry | Finding] = []
        async for entry in trail.entries(wanted):
            held.append(entry)
            if last is not None and len(held) > last:
                del held[0]
            elif last is None:
                findings += print_entry(held.pop(), as_json=as_json)
        for entry in held:
            findings += print_entry(entry, as_json=as_json)
        if follow:
            async for entry in trail.entries(wanted, follow=True):
                findings += print_entry(entry, as_json=as_json)
    return 4 if findings else 0


def print_entry(entry: AuditEntry | Finding, *, as_json: bool) -> int:
    """Print one entry, a finding for people on stderr; return 1 for a finding."""
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
                }
            )
        else:
            note(f"{shown_time(entry.stored)} #{entry.sequence} DOES NOT VERIFY: {entry.code} at step {entry.step}")
        return 1
    if as_json:
        print_json(as_document(entry))
    else:
        click.echo(printable(as_line(entry)))
    return 0


def as_document(entry: AuditEntry) -> Mapping[str, object]:
    """Return one entry as a JSON object: what `--json` prints."""
    base: dict[str, object] = {
        "kind": entry.record.kind,
        "sequence": entry.sequence,
        "time": shown_time(entry.stored),
        "recorder": str(entry.recorder),
        "record": entry.leaf.hex(),
    }
    if isinstance(entry.record, DecisionRecord):
        record = entry.record
        base |= {
            "action": record.action,
            "allow": record.allow,
            "code": str(record.code) if record.code else "",
            "reasons": list(record.reasons),
            "policy": record.policy or "",
            "revision": record.revision or "",
            "engine": record.engine or "",
            "input": entry.input,
            "redacted": list(record.redacted),
        }
        if record.body is not None:
            base["body"] = b64encode(record.body).decode()
    elif isinstance(entry.record, OutcomeRecord):
        base |= {
            "decision": entry.record.decision.hex(),
            "code": str(entry.record.code) if entry.record.code else "",
            "micros": entry.record.micros,
            "sent": [one.hex() for one in entry.record.sent],
        }
        if entry.decision is not None:
            base["action"] = entry.decision.action
    elif isinstance(entry.record, DenialsRecord):
        base |= {
            "from": str(entry.record.iss),
            "minute": shown_time(entry.record.minute),
            "counts": {str(code): count for code, count in sorted(entry.record.counts.items())},
        }
    if entry.decided is not None:
        base |= {"message": entry.decided.id.hex(), "from": str(entry.decided.iss), "subject": entry.decided.to}
    return base


def as_line(entry: AuditEntry) -> str:
    """Return one entry as one line for people: when, verdict, what, from whom, for whom, why."""
    head = f"{shown_time(entry.stored)} #{entry.sequence:<5}"
    sender = entry.decided.iss.path if entry.decided is not None else ""
    if isinstance(entry.record, DecisionRecord):
        record = entry.record
        verdict = "ALLOW" if record.allow else "DENY "
        user = as_mapping(as_mapping(entry.input.get("context")).get("user")).get("id") or "-"
        why = ", ".join(record.reasons) or (str(record.code) if record.code else "")
        return f"{head} {verdict} {record.action:<24} from {sender:<20} for {user:<10} {why}".rstrip()
    if isinstance(entry.record, OutcomeRecord):
        action = entry.decision.action if entry.decision is not None else "?"
        result = str(entry.record.code) if entry.record.code else "done"
        return f"{head} -> {result:<8} {action:<18} in {entry.record.micros / 1000:.1f} ms"
    if isinstance(entry.record, DenialsRecord):
        counts = ", ".join(f"{count} {code}" for code, count in sorted(entry.record.counts.items()))
        minute = shown_time(entry.record.minute)
        return f"{head} DENY  {counts} more from {entry.record.iss.path} in the minute of {minute}, only counted"
    return f"{head} {entry.record.kind} by {entry.recorder}"
