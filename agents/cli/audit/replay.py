"""`sealbus audit replay --into MODULE:AGENT`: run a handler again on recorded messages, for debugging."""

from __future__ import annotations

import sys
import traceback
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, redirect_stdout

import click

from sealbus.agents.cli.audit.entries import as_document, as_line, print_entry
from sealbus.agents.cli.options import Invocation
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.run.worker import load_agent
from sealbus.agents.runtime.replay.replay import Replay, Replayed, Result
from sealbus.bus.audit.trail import AuditFilter, Finding
from sealbus.envelopes.printable import printable
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace

_SHOWN = 4_096
"""Bytes of a handler's result that are shown."""


async def replay_into(
    target: str,
    wanted: AuditFilter,
    invocation: Invocation,
    *,
    most: int,
    stream: str | None = None,
) -> int:
    """Replay into the agent that `target` names, print each message, and return the exit code: 4 with findings."""
    from sealbus.agents.runtime.open import deployment_of, open_audit_reading

    agent = load_agent(target)
    settings = invocation.settings()
    findings, ours = 0, sys.stdout

    def on_finding(finding: Finding) -> None:
        nonlocal findings
        findings += 1
        with redirect_stdout(ours):
            print_entry(finding, as_json=invocation.as_json)

    async with AsyncExitStack() as stack:
        transport, trail = await stack.enter_async_context(
            open_audit_reading(invocation.as_name, settings, stream=stream)
        )
        await stack.enter_async_context(agent.open_lifespan())
        replaying = Replay(
            agent=agent,
            deployment=deployment_of(settings),
            transport=transport,
            most=most,
            on_finding=on_finding,
        )
        replayed = await stack.enter_async_context(aclosing(replaying.replay(trail.entries(wanted))))
        while (message := await _next(replayed)) is not None:
            findings += message.result is Result.OTHER
            if invocation.as_json:
                print_json(as_replayed(message))
                continue
            for line in replayed_lines(message):
                click.echo(printable(line))
            if message.result is Result.FAILED and message.error is not None:
                for line in "".join(traceback.format_exception(message.error)).splitlines():
                    note(printable(line))
    return 4 if findings else 0


async def _next(replayed: AsyncGenerator[Replayed, None]) -> Replayed | None:
    """Return the next replayed message. Texts that handlers print meanwhile are no results and go to stderr."""
    with redirect_stdout(sys.stderr):
        return await anext(replayed, None)


def as_replayed(message: Replayed) -> Mapping[str, object]:
    """Return one replayed message as a JSON object."""
    return {
        "kind": "replay",
        "place": _place(message),
        "recorded": as_document(message.entry),
        "outcome": (str(message.outcome.code) if message.outcome.code else "done")
        if message.outcome is not None
        else "",
        "result": str(message.result),
        "error": _error(message),
        "resource": message.resource,
        "answer": _answer(message),
        "would_send": [{"kind": sent.kind, "subject": sent.subject, "bytes": sent.size} for sent in message.sent],
        "micros": message.micros,
    }


def replayed_lines(message: Replayed) -> list[str]:
    """Return one replayed message as lines for people: the record, then the result of the handler this time."""
    then = (
        (str(message.outcome.code) if message.outcome.code else "done")
        if message.outcome is not None
        else "not recorded"
    )
    lines = [as_line(message.entry), f"  {_place(message)}, outcome then: {then}"]
    text = {
        Result.DENIED: "not given to the handler: denied",
        Result.GONE: "no longer held",
        Result.OTHER: "NOT THE MESSAGE THAT WAS DECIDED ON",
        Result.UNKNOWN: "the agent has no handler for it",
    }.get(message.result)
    if text is not None:
        return [*lines, f"  {text}"]
    lines.append(
        f"  now: {message.result}{f' on {message.resource}' if message.resource else ''} in {message.micros / 1000:.1f} ms"
    )
    lines += [f"  {text}" for text in (_error(message), _answer(message)) if text]
    return lines + [f"  would send {sent.kind} {sent.subject}, {sent.size} bytes" for sent in message.sent]


def _place(message: Replayed) -> str:
    place = message.entry.record.place if isinstance(message.entry.record, DecisionRecord) else None
    return f"{place.stream} #{place.sequence}" if isinstance(place, StreamPlace) else ""


def _error(message: Replayed) -> str:
    return f"{type(message.error).__name__}: {message.error}" if message.error is not None else ""


def _answer(message: Replayed) -> str:
    return message.answer.body[:_SHOWN].decode(errors="replace") if message.answer is not None else ""
