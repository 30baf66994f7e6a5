"""`sealbus policy backtest`: what another policy would have decided, or whether the log follows from its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import click

from sealbus.agents.cli.backtest_output import BacktestResult, as_document, print_result
from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json, shown_time
from sealbus.agents.cli.times import Moment
from sealbus.bus.audit_trail import AuditEntry, AuditFilter, Finding
from sealbus.bus.recorded_decisions import recorded_decisions
from sealbus.policies.archived_policies import ArchivedPolicies
from sealbus.policies.backtest import backtest, reproduce
from sealbus.policies.backtest_report import BacktestReport
from sealbus.policies.engine import PolicyEngine
from sealbus.policies.open_policy import open_policy

__all__ = ["FINDINGS_SHOWN", "Limit", "command", "run_backtest"]

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
    help="Without --policy: a folder of the bundle files that were in force; each decision is made again by its own.",
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

    With --policy it is a candidate, and what would change is shown, the risk first. With --bundles each decision is made
    again by the policy that made it, and any difference is a finding.

    Exit codes: 0 done; 1 over a --fail-on, or questions that the engine left unanswered; 2 usage; 4 records that do not
    verify or, with --bundles, do not follow from their input and policy.
    """
    from sealbus.agents.runtime import open_audit_trail
    from sealbus.agents.settings import load_settings

    if (policy is None) is (bundles is None):
        raise click.UsageError("say either --policy or --bundles")
    if (engine == "sidecar") is (opa is None):
        raise click.UsageError("--engine sidecar and --opa go together")

    async def run() -> int:
        wanted = AuditFilter(since=since or 0, until=until)
        async with (
            open_audit_trail(as_name, load_settings(config)) as trail,
            aclosing(trail.entries(wanted)) as entries,
        ):
            result = await run_backtest(entries, policy=policy, bundles=bundles, opa=opa, limits=limits)
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
) -> BacktestResult:
    """Ask `policy`, or else each decision's own among `bundles`, about the decisions of `entries`."""
    result = BacktestResult(limits=limits)

    def on_finding(finding: Finding) -> None:
        result.findings += 1
        if result.findings <= FINDINGS_SHOWN:
            note(f"{shown_time(finding.stored)} #{finding.sequence} DOES NOT VERIFY: {finding.code} at {finding.step}")

    def opening(file: Path) -> AbstractAsyncContextManager[PolicyEngine]:
        return open_policy(file, opa=opa)

    async with aclosing(recorded_decisions(entries, on_finding)) as decisions:
        if policy is not None:
            async with opening(policy) as engine:
                status = await engine.status()
                result.revision, result.engine = status.revision, status.engine
                result.report = await backtest(decisions, engine)
        elif bundles is not None:
            async with ArchivedPolicies(bundles, open_engine=opening) as archived:
                result.own_policies = True
                result.engine = "embedded" if opa is None else "sidecar"
                result.report = await reproduce(decisions, archived)
                for name, problem in archived.problems.items():
                    note(f"{name} is not used: {problem}")
    return result
