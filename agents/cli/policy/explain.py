"""`sealbus policy explain`: the rules and values behind a decision, recorded or on an input document."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from sealbus.agents.cli.audit.source import EvidenceSource, source_options
from sealbus.agents.cli.options import EXISTING, PATH_OR_INPUT, Invocation
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.files import file_errors
from sealbus.bus.inspection.documents import explanation_document, shown_time
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.audit.trail import AuditEntry, Finding
    from sealbus.policies.backtest.archived_policies import ArchivedPolicies
    from sealbus.policies.backtest.recorded import RecordedDecision
    from sealbus.policies.bundle.format import Bundle
    from sealbus.policies.explain.explanation import ExplainedDecision, LiteralShown, NotExplained

    BundlesOf: TypeAlias = Callable[[str], Awaitable[Sequence[Bundle]]]


_UNVERIFIED: Final = 4
_RECENT: Final = 2_000
"""Messages at the end of the audit stream that are searched for the newest denial."""

_WHY: Final[Mapping[str, str]] = {
    "not_asked": "the policy was not asked about it",
    "unanswered": "the policy engine did not answer then",
    "no_input": "the record has no input document",
    "redacted": "a part of the input was left out of the record, so that it cannot be made again",
    "bad_input": "the recorded input is invalid: no engine can have decided on it",
    "no_policy": "its policy is not kept, or is refused today: name a copy with --policy",
    "other_result": "made again, the decision comes out differently",
    "no_trace": "the policy cannot be traced",
}


@click.command("explain")
@click.argument("wanted", metavar="[ID]", required=False)
@click.option(
    "--input",
    "input_file",
    type=PATH_OR_INPUT,
    default=None,
    metavar="FILE",
    help="Explain the decision on this input document instead; - for standard input.",
)
@click.option(
    "--policy",
    type=EXISTING,
    default=None,
    metavar="FOLDER|FILE",
    help="The policy: a folder or a bundle file. By default the archived policy that made the decision.",
)
@click.option("--all", "everything", is_flag=True, help="List every rule that was evaluated, not only the outermost.")
@source_options
async def explain(
    wanted: str | None,
    input_file: Path | None,
    policy: Path | None,
    everything: bool,
    source: EvidenceSource,
) -> int:
    """Explain the decisions on message ID (32 hex digits), or the record or message with a hash (64).

    The id of a request at the edge (X-Request-Id of a 403) stands for all decisions about the request.

    Without an ID, the newest denial among the last 2000 messages of the audit stream is explained.

    Each decision is made again by the policy that made it, and is explained only if it comes out as it was recorded. The
    explanation shows values of the input document and of the policy's data: treat it like the record.

    Exit codes: 0 explained; 1 a decision that cannot be explained, or none found; 2 usage; 4 records that do not verify.
    """
    from sealbus.agents.evidence.lookup import identifier

    if wanted is not None and input_file is not None:
        raise click.UsageError("give either the ID of a message or record, or --input FILE")
    if (source.export is None) is not (source.root is None):
        raise click.UsageError("--export and --root go together")
    if source.export is not None and wanted is None:
        raise click.UsageError("--export needs the ID of a message or record")
    if input_file is not None:
        if policy is None:
            raise click.UsageError("--input needs --policy")
        return _explain_input(input_file, policy, everything=everything, as_json=source.invocation.as_json)

    sought = identifier(wanted) if wanted is not None else None

    from sealbus.policies.explain.explanation import ExplainedDecision, Explainer

    explainer, explained, missed, findings = Explainer(), 0, 0, 0
    async with _opened(source, recent=sought is None) as (entries, bundles_of):
        decisions = _decisions(entries, sought) if sought is not None else _newest_denial(entries)
        async for entry, recorded in decisions:
            if recorded is None:
                findings += 1
                continue
            bundles = [_bundle(policy)] if policy is not None else await bundles_of(recorded.revision)
            result = explainer.explain_recorded(recorded, bundles)
            explained += isinstance(result, ExplainedDecision)
            missed += not isinstance(result, ExplainedDecision)
            _print(_about(entry, recorded), result, everything=everything, as_json=source.invocation.as_json)
    if findings:
        note(f"{findings} records do not verify: sealbus audit replay names them")
    if not explained and not missed:
        note("no decision with this id is recorded" if sought is not None else "no denial was recorded lately")
    return _UNVERIFIED if findings else int(missed > 0 or not explained)


def _explain_input(file: Path, policy: Path, *, everything: bool, as_json: bool) -> int:
    from sealbus.envelopes.errors import ConfigurationError, PolicyFailed
    from sealbus.policies.decision.approval import is_question
    from sealbus.policies.decision.documents import checked_document
    from sealbus.policies.explain.explanation import ExplainedDecision, Explainer

    with file_errors(f"{file} cannot be read"):
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        document = checked_document(data)
    except PolicyFailed as error:
        raise ConfigurationError(error.detail) from error
    result = Explainer().explain(_bundle(policy), document, of_approval=is_question(document))
    _print({}, result, everything=everything, as_json=as_json)
    return 0 if isinstance(result, ExplainedDecision) else 1


def _bundle(policy: Path) -> Bundle:
    from sealbus.policies.bundle.files import build_bundle, load_bundle

    return build_bundle(policy) if policy.is_dir() else load_bundle(policy)


@asynccontextmanager
async def _opened(
    source: EvidenceSource, *, recent: bool
) -> AsyncGenerator[tuple[AsyncIterable[AuditEntry | Finding], BundlesOf], None]:
    """Open the entries to search, and give a function that finds the policies of a revision."""
    from sealbus.agents.evidence.decisions import POLICIES, archived_policies, decision_entries
    from sealbus.agents.evidence.files import FolderFiles
    from sealbus.policies.backtest.archived_policies import ArchivedPolicies
    from sealbus.policies.engines.open import open_policy

    if source.export is not None:
        from sealbus.agents.evidence.verify import verify_export

        trusted, files = source.root_file(), FolderFiles(source.export)
        report = await asyncio.to_thread(lambda: verify_export(files, trusted))
        async with (
            archived_policies(files, report) as archived,
            aclosing(decision_entries(files, trusted, report)) as entries,
        ):
            yield entries, _of_archive(archived)
        return
    from sealbus.agents.runtime.open import open_audit_trail

    invocation = source.invocation
    settings = invocation.settings()
    folder = source.log_folder or settings.control.notary.folder
    async with AsyncExitStack() as opened:
        after = await _recent(invocation, settings) if recent else 0
        trail = await opened.enter_async_context(open_audit_trail(invocation.as_name, settings, after=after))
        stored = await opened.enter_async_context(aclosing(trail.entries()))
        if folder is not None:
            policies = ArchivedPolicies(folder / POLICIES, open_engine=open_policy)
            yield stored, _of_archive(await opened.enter_async_context(policies))
        else:
            yield stored, _of_settings(settings, invocation)


async def _recent(invocation: Invocation, settings: Settings) -> int:
    """Return the sequence after which the last messages of the audit stream begin."""
    from sealbus.agents.runtime.open import open_connection
    from sealbus.bus.nats.api import audit_stream

    async with open_connection(invocation.as_name, settings) as (_, connection):
        return max(0, (await audit_stream(connection.jetstream)).last - _RECENT)


def _of_archive(archived: ArchivedPolicies) -> BundlesOf:
    from sealbus.policies.bundle.files import load_bundle
    from sealbus.policies.lint.module import PolicyRefused

    async def find(revision: str) -> Sequence[Bundle]:
        bundles: list[Bundle] = []
        for file in archived.files(revision):
            try:
                bundles.append(await asyncio.to_thread(load_bundle, file))
            except PolicyRefused as error:
                note(f"{file.name} is refused today: {printable(error.detail)}")
        return bundles

    return find


def _of_settings(settings: Settings, invocation: Invocation) -> BundlesOf:
    """Return a function that finds policies without an archive: in the store, or in the file of the settings."""
    from sealbus.agents.cli.policy.push import open_store
    from sealbus.agents.runtime.policy.history import former_policy
    from sealbus.policies.bundle.files import load_bundle

    async def find(revision: str) -> Sequence[Bundle]:
        if settings.policy.bucket is not None and settings.policy.keys:
            async with open_store(invocation) as (store, anchors):
                former = await former_policy(store, anchors, revision)
            return [] if former is None else [former]
        file = settings.policy.file
        bundle = await asyncio.to_thread(load_bundle, file) if file is not None else None
        return [] if bundle is None or bundle.revision != revision else [bundle]

    return find


async def _decisions(
    entries: AsyncIterable[AuditEntry | Finding], sought: bytes | None
) -> AsyncGenerator[tuple[AuditEntry | Finding, RecordedDecision | None], None]:
    """Yield each decision about the message, request or record `sought` (all with None), and each finding with None."""
    from sealbus.bus.audit.trail import Finding, recorded_decision

    async for entry in entries:
        if isinstance(entry, Finding):
            yield entry, None
        elif (
            entry.decided is not None
            and sought in (None, entry.leaf, entry.decided.id, entry.decided.digest, entry.txn)
            and (recorded := recorded_decision(entry)) is not None
        ):
            yield entry, recorded


async def _newest_denial(
    entries: AsyncIterable[AuditEntry | Finding],
) -> AsyncGenerator[tuple[AuditEntry | Finding, RecordedDecision | None], None]:
    """Yield the last denial that the policy was asked about, and each finding. Note how many other denials followed."""
    from sealbus.policies.backtest.recorded import NotReplayable, Verdict

    newest, after = None, 0
    async for entry, recorded in _decisions(entries, None):
        if recorded is None:
            yield entry, None
        elif recorded.verdict is not Verdict.ALLOW:
            by_policy = recorded.question() is not NotReplayable.NOT_ASKED
            newest, after = ((entry, recorded), 0) if by_policy else (newest, after + 1)
    if after:
        note(f"{after} newer denials came before the policy was asked: sealbus audit replay shows them")
    if newest is not None:
        yield newest


def _about(entry: AuditEntry | Finding, recorded: RecordedDecision) -> Mapping[str, object]:
    from sealbus.bus.audit.trail import AuditEntry

    decided = entry.decided if isinstance(entry, AuditEntry) else None
    return {
        "sequence": recorded.sequence,
        "time": shown_time(recorded.time),
        "record": recorded.leaf.hex(),
        "message": decided.id.hex() if decided is not None else "",
        "action": recorded.action,
        "verdict": str(recorded.verdict),
        "revision": recorded.revision,
    }


def _print(
    about: Mapping[str, object], result: ExplainedDecision | NotExplained, *, everything: bool, as_json: bool
) -> None:
    if as_json:
        print_json({**about, **explanation_document(result)})
        return
    if about:
        click.echo(printable(f"{about['time']} #{about['sequence']} {about['action']}"))
    for line in as_lines(result, everything=everything):
        click.echo(line)


def as_lines(result: ExplainedDecision | NotExplained, *, everything: bool) -> Iterator[str]:
    """Yield the lines of an explanation: each reason with its causes, then the rules; with `everything` inner rules, too."""
    from sealbus.policies.explain.explanation import NotExplained

    if isinstance(result, NotExplained):
        detail = f": {result.detail}" if result.detail else ""
        yield f"not explained ({result.why}): {_WHY[result.why]}{detail}"
        return
    yield f"{'ALLOW' if result.allow else 'DENY'} by {result.policy} {result.revision}"
    if result.queue:
        yield f"asks for an approval in the queue {result.queue}: {result.asked}"
        yield f"  next: sent as a task, it waits there for an approval: sealbus approvals ls --queue {result.queue}"
    for reason in result.reasons:
        yield f"{reason.reason}: {reason.title}" if reason.title else reason.reason
        if reason.remedy:
            yield f"  next: {reason.remedy}"
        yield from _literals(reason.failed, "<- failed")
        yield from _literals(reason.held, "held")
    everything = everything or any(not reason.failed and not reason.held for reason in result.reasons)
    yield "rules"
    for rule in result.rules:
        if everything or not rule.depth:
            indent = "  " * (rule.depth + 1)
            verdict = "held  " if rule.held else "failed"
            yield f"{indent}{verdict} {rule.file}:{rule.line}  {rule.rule}"
            if rule.failed is not None:
                yield from _literals([rule.failed], "<- failed", indent=f"{indent}       ")
    if result.cut:
        yield "  ... and more"
    for file in result.untraced:
        yield f"  {file} cannot be traced: its rules are not listed"


def _literals(literals: Iterable[LiteralShown], verdict: str, indent: str = "  ") -> Iterator[str]:
    for literal in literals:
        looked = ", ".join(f"{of.written} = {'undefined' if of.value is None else of.value}" for of in literal.looked)
        yield "   ".join(
            part for part in (f"{indent}{literal.file}:{literal.line}  {literal.written}", looked, verdict) if part
        )
