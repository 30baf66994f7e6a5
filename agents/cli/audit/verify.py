"""`sealbus audit verify DIR --root FILE`: verify every byte of an export, or of the running deployment's log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.audit.source import EvidenceSource, mirror_options, root_option
from sealbus.agents.cli.options import PATH, Invocation, invocation_options, log_folder_option
from sealbus.agents.cli.output import note, print_json, progress_bar
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.evidence.verify import Verification
    from sealbus.envelopes.export.entries import ShownRestoration
    from sealbus.envelopes.export.finding import Finding
    from sealbus.policies.backtest.report import BacktestReport


_UNVERIFIED = 4


@click.command("verify")
@click.argument("folder", required=False, type=PATH)
@root_option
@click.option("--live", is_flag=True, help="Verify the running deployment instead of an export.")
@log_folder_option(", with --live")
@mirror_options
@click.option(
    "--beside",
    nargs=2,
    multiple=True,
    type=PATH,
    metavar="FOLDER ROOT",
    help="Verify the export of another cell's log with it; what was asked, approved and granted there counts. "
    "May be repeated.",
)
@click.option("--decisions", is_flag=True, help="Also make every decision again by its archived policy.")
@click.option("--processes", default=None, type=click.IntRange(1, 1_024), help="How many; by default one per core.")
@invocation_options("operator")
def verify(
    folder: Path | None,
    root: Path | None,
    live: bool,
    log_folder: Path | None,
    mirror: bool,
    policies: Path | None,
    beside: Sequence[tuple[Path, Path]],
    decisions: bool,
    processes: int | None,
    invocation: Invocation,
) -> int:
    """Verify an export in FOLDER, the running deployment with --live, or the mirror in this region with --mirror.

    Nothing may be missing, changed, added or reordered.

    With --decisions each decision is made again on the embedded engine where possible. A decision that does not follow from
    its recorded input and policy is a finding (bad_decision). Decisions that cannot be made again are counted.

    Where there are cells, decisions may rest on what another cell's log shows: on grants that were given at an edge there,
    or on approvals from before an agent was moved. Give an export of that log with --beside. The logs are verified as one
    set: each may rest on what any other shows. With --json each object has its `export` then.

    Exit code 4 with any finding. --root must not come from the export itself.
    """
    from sealbus.agents.evidence.decisions import redecide
    from sealbus.agents.evidence.verify import verify_export, verify_together

    if (folder is not None) + live + mirror != 1:
        raise click.UsageError("give either a FOLDER, --live or --mirror")
    source = EvidenceSource(
        invocation=invocation, export=folder, root=root, log_folder=log_folder, mirror=mirror, policies=policies
    )
    trusted = source.trusted_root()
    others = [EvidenceSource(invocation=invocation, export=other, root=its_root) for other, its_root in beside]
    roots = [other.trusted_root() for other in others]
    origins = [known.origin for known in (trusted, *roots)]
    if len(set(origins)) < len(origins):
        raise click.UsageError(f"--beside is for other logs: give {_twice(origins)} once")
    folders = [
        str(one.resolve()) for one in (*(other for other, _ in beside), *((folder,) if folder is not None else ()))
    ]
    if len(set(folders)) < len(folders):
        raise click.UsageError(f"--beside is for other exports: give {_twice(folders)} once")
    # Pairs, because a report must not take another's place, whatever their exports are called.
    reports: list[tuple[str, Verification]] = []
    for other, known in zip(others, roots, strict=True):
        with other.opened(known) as files:
            reports.append((str(other.export), verify_export(files, known, beside=None, processes=processes)))
    with source.opened(trusted) as files, progress_bar("verifying") as progress:
        report = verify_export(files, trusted, beside=None, processes=processes, progress=progress)
        reports.append((str(folder or ("the mirror" if mirror else "the running deployment")), report))
        verify_together([found for _, found in reports])
        redecided = None
        if decisions:
            redecided, problems = asyncio.run(redecide(files, trusted, report))
            for name, problem in problems.items():
                note(f"{name}: {problem}")
    status = 0
    for name, found in reports:
        where = _shown(name) if beside else ""
        made_again = redecided if found is report else None
        status = max(status, show_report(found, as_json=invocation.as_json, redecided=made_again, export=where))
    return status


def _twice(origins: Sequence[str]) -> str:
    return printable(next(origin for origin in origins if origins.count(origin) > 1))


def show_report(
    report: Verification, *, as_json: bool, redecided: BacktestReport | None = None, export: str = ""
) -> int:
    """Print every finding and the counts; return the exit code. `redecided` is the report on decisions made again.

    Of several exports `export` says which one it is about.
    """
    where = {"export": export} if export else {}
    if export and not as_json:
        click.echo(f"{export}:")
    for finding in report.findings:
        show_finding(finding, where, as_json=as_json)
    for restoration in report.restorations:
        _show_restoration(restoration, where, as_json=as_json)
    entries, size = report.tally.entries, report.checkpoint.size if report.checkpoint is not None else 0
    if as_json:
        print_json(
            {
                "kind": "report",
                **where,
                "passed": report.passed,
                "findings": report.count,
                "size": size,
                "following": report.following,
                "cosigners": list(report.cosigners),
                "root": report.checkpoint.root.hex() if report.checkpoint is not None else "",
                "entries": dict(sorted(entries.items())),
                "records": dict(sorted(report.tally.records.items())),
                **({"decisions": _decisions(redecided)} if redecided is not None else {}),
            }
        )
    else:
        if report.count > len(report.findings):
            click.echo(f"... and {report.count - len(report.findings)} more")
        records = report.tally.records.total()
        note(f"{size} entries, {records} records, {entries['unverified']} messages that prove nothing")
        if report.tally.later:
            note(f"{report.tally.later} records are of kinds that a later version writes; who sealed them is verified")
        if entries["gap"]:
            note(f"{entries['gap']} gaps in the stream: messages there could not be read when the notary logged them")
        if report.cosigners:
            note(f"cosigned by {', '.join(map(printable, report.cosigners))}")
        if report.following:
            note(f"{report.following} entries follow that the quorum had not cosigned at the time of the export")
        if redecided is not None:
            left = ", ".join(f"{count} {why}" for why, count in sorted(redecided.not_replayable.items()))
            note(f"{redecided.compared} of {redecided.read} decisions made again, not replayable: {left or 'none'}")
        click.echo("verified" if report.passed else f"NOT VERIFIED: {findings_text(report.count)}")
    return 0 if report.passed else _UNVERIFIED


def show_finding(finding: Finding, where: Mapping[str, str] | None = None, *, as_json: bool) -> None:
    """Print one finding. With JSON, `where` are members that say which export it is in."""
    if as_json:
        place = {"file": _shown(finding.file)} if finding.file else {"sequence": finding.sequence}
        print_json({"kind": "finding", **(where or {}), **place, "code": finding.code, "detail": finding.detail})
    else:
        click.echo(printable(f"{_shown(finding.place)} {finding.code} {finding.detail}".rstrip()))


def _show_restoration(shown: ShownRestoration, where: Mapping[str, str], *, as_json: bool) -> None:
    """Print the restoration of a stream, and the logged messages that are gone."""
    restoration = shown.restoration
    if as_json:
        print_json(
            {
                "kind": "restored",
                **where,
                "by": restoration.by.value,
                "time": restoration.time,
                "last": restoration.last,
                "logged": shown.logged,
                "lost": shown.lost,
                "ranges": [list(span) for span in shown.ranges],
                "manifest": restoration.manifest,
                "streams": [{"name": row.stream, "last": row.last} for row in restoration.streams],
            }
        )
        return
    gone = ", ".join(f"#{first}-#{last}" if first < last else f"#{first}" for first, last in shown.ranges)
    missing = f"{shown.lost} logged messages are gone: {gone}" if shown.lost else "nothing that was logged is gone"
    when, extent = shown_time(restoration.time), f"up to #{restoration.last} of #{shown.logged}"
    note(f"restored at {when} by {restoration.by}, {extent}: {missing}")
    if restoration.streams:
        others = ", ".join(f"{row.stream} up to #{row.last}" for row in restoration.streams)
        note(f"  restored with it, so that messages that waited there were handled: {others}")


def _decisions(report: BacktestReport) -> dict[str, object]:
    return {
        "read": report.read,
        "compared": report.compared,
        "same": report.same,
        "unanswered": report.unanswered,
        "not_replayable": {str(why): count for why, count in sorted(report.not_replayable.items())},
    }


def findings_text(findings: int) -> str:
    """Return the number of findings in words."""
    return f"{findings} finding" if findings == 1 else f"{findings} findings"


def _shown(name: str) -> str:
    """Return a file's name without characters that a terminal would obey: anyone may have chosen it."""
    return ascii(name)[1:-1]
