"""`sealbus policy backtest`: what another policy would have decided, or whether the log follows from its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Set
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import click

from sealbus.agents.cli.backtest_output import BacktestResult, as_document, print_result
from sealbus.agents.cli.evidence_source import read_root
from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json, shown_time
from sealbus.agents.cli.progress import progress_bar
from sealbus.agents.cli.times import Moment
from sealbus.bus.audit_trail import AuditEntry, AuditFilter, Finding
from sealbus.bus.recorded_decisions import recorded_decisions
from sealbus.policies.archived_policies import ArchivedPolicies
from sealbus.policies.backtest import backtest, reproduce
from sealbus.policies.backtest_report import BacktestReport
from sealbus.policies.engine import PolicyEngine
from sealbus.policies.open_policy import open_policy

__all__ = ["FINDINGS_SHOWN", "Limit", "backtest_export", "command", "run_backtest"]

FINDINGS_SHOWN = 20
"""Findings that are told one by one; all are counted."""


class Limit(click.ParamType[tuple[str, int]]):
    """Converts `deny-to-allow=0` to what is counted and how much of it may be."""

    name = "name=most"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return name and number, or fail the command's usage."""
        if isinstance(value, tuple):
            return value
        name, _, most = str(value).partition("=")
        names = BacktestReport().counted()
        if name not in names or not (most.isascii() and most.isdecimal()):
            self.fail(f"{value!r} is not NAME=NUMBER with a NAME of {', '.join(names)}", param, ctx)
        return name, int(most)


@click.command("backtest")
@click.option(
    "--policy",
    type=click.Path(path_type=Path, exists=True),
    default=None,
    help="The candidate: a policy folder or a bundle file.",
)
@click.option(
    "--bundles",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=None,
    help="Without --policy: the bundle files that were in force; otherwise those that the notary or the export keeps.",
)
@click.option(
    "--export",
    "export",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Read this export, with --root; otherwise the running deployment.",
)
@click.option(
    "--root",
    "root",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="What is known of the log of --export from elsewhere.",
)
@click.option(
    "--log",
    "log_folder",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Without --policy, --bundles and --export: the folder in which the notary keeps the log, and policies in it.",
)
@click.option("--since", type=Moment(), default=None, help="From this time on: RFC 3339, or 10m, 2h, 3d ago.")
@click.option("--until", type=Moment(), default=None, help="Before this time.")
@click.option("--engine", type=click.Choice(["embedded", "sidecar"]), default="embedded", show_default=True)
@click.option("--opa", type=click.Path(path_type=Path), default=None, help="The opa executable, for --engine sidecar.")
@click.option(
    "--fail-on",
    "limits",
    type=Limit(),
    multiple=True,
    help="Exit with 1 where more than so many are counted, for instance deny-to-allow=0. May be repeated.",
)
@config_option
@as_option("operator")
@json_option
def command(
    policy: Path | None,
    bundles: Path | None,
    export: Path | None,
    root: Path | None,
    log_folder: Path | None,
    since: int | None,
    until: int | None,
    engine: str,
    opa: Path | None,
    limits: tuple[tuple[str, int], ...],
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Ask a policy about the recorded decisions of the audit stream, and compare.

    With --policy it is a candidate, and what would change is shown, the risk first. Without, each decision is made again
    by the policy that made it, and any difference is a finding. With --export the whole export is verified first.

    Exit codes: 0 done; 1 over a --fail-on, or questions that the engine left unanswered; 2 usage; 4 records that do not
    verify or, without --policy, do not follow from their input and policy.
    """
    from sealbus.agents.evidence.places import LogPlace
    from sealbus.agents.evidence.redeciding import POLICIES
    from sealbus.agents.runtime import open_audit_trail
    from sealbus.agents.settings import load_settings

    if policy is not None and bundles is not None:
        raise click.UsageError("say either --policy or --bundles")
    if (export is None) is not (root is None):
        raise click.UsageError("--export and --root go together")
    if (engine == "sidecar") is (opa is None):
        raise click.UsageError("--engine sidecar and --opa go together")

    async def run() -> int:
        wanted = AuditFilter(since=since or 0, until=until)
        if export is not None and root is not None:
            result = await backtest_export(export, root, wanted, policy=policy, bundles=bundles, opa=opa, limits=limits)
        else:
            settings = load_settings(config).for_command()
            own = bundles
            if policy is None and bundles is None:
                own = LogPlace.of(settings, log_folder).folder / POLICIES
            async with open_audit_trail(as_name, settings) as trail, aclosing(trail.entries(wanted)) as entries:
                result = await run_backtest(entries, policy=policy, bundles=own, opa=opa, limits=limits)
        if as_json:
            print_json(as_document(result))
        else:
            print_result(result)
        return result.exit_code

    raise SystemExit(asyncio.run(run()))


async def run_backtest(
    entries: AsyncIterable[AuditEntry | Finding],
    *,
    policy: Path | None,
    bundles: Path | None,
    opa: Path | None,
    limits: tuple[tuple[str, int], ...],
    digests: Set[bytes] | None = None,
) -> BacktestResult:
    """Ask `policy`, or else each decision's own among `bundles`, about the decisions of `entries`.

    With `digests` only the bundles with these hashes count (`ArchivedPolicies`).
    """
    result = BacktestResult(limits=limits)

    def on_finding(finding: Finding) -> None:
        result.findings += 1
        if result.findings <= FINDINGS_SHOWN:
            note(f"{_place(finding)} DOES NOT VERIFY: {finding.code} at {finding.step}")

    def opening(file: Path) -> AbstractAsyncContextManager[PolicyEngine]:
        return open_policy(file, opa=opa)

    async with aclosing(recorded_decisions(entries, on_finding)) as decisions:
        if policy is not None:
            async with opening(policy) as engine:
                status = await engine.status()
                result.revision, result.engine = status.revision, status.engine
                result.report = await backtest(decisions, engine)
        elif bundles is not None:
            async with ArchivedPolicies(bundles, open_engine=opening, digests=digests) as archived:
                result.own_policies = True
                result.engine = "embedded" if opa is None else "sidecar"
                result.report = await reproduce(decisions, archived)
                for name, problem in archived.problems.items():
                    note(f"{name}: {problem}")
    return result


async def backtest_export(
    folder: Path,
    root: Path,
    wanted: AuditFilter,
    *,
    policy: Path | None,
    bundles: Path | None,
    opa: Path | None,
    limits: tuple[tuple[str, int], ...],
) -> BacktestResult:
    """Verify the export in `folder` with the root file `root`, then do `run_backtest` on its decisions.

    Without `policy` and `bundles` each decision is asked of its own policy among those that the log names.
    """
    from sealbus.agents.evidence.decision_entries import decision_entries
    from sealbus.agents.evidence.files import FolderFiles
    from sealbus.agents.evidence.redeciding import POLICIES
    from sealbus.agents.evidence.verification import verify_export

    trusted, files = read_root(root), FolderFiles(folder)
    with progress_bar("verifying") as progress:
        report = await asyncio.to_thread(lambda: verify_export(files, trusted, progress=progress))
    own, digests = bundles, None
    if policy is None and bundles is None:
        own, digests = folder / POLICIES, report.policies
    async with aclosing(decision_entries(files, trusted, report, wanted)) as entries:
        return await run_backtest(entries, policy=policy, bundles=own, opa=opa, limits=limits, digests=digests)


def _place(finding: Finding) -> str:
    # Anybody may have named a file of an export: nothing in it is for the terminal.
    place = ascii(finding.subject)[1:-1] if not finding.sequence else f"#{finding.sequence}"
    return f"{shown_time(finding.stored)} {place}" if finding.stored else place
