"""`sealbus policy backtest`: how a candidate policy decides, or whether decisions follow from their own policy."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import click

from sealbus.agents.cli.audit.source import EvidenceSource, source_options
from sealbus.agents.cli.options import EXISTING, EXISTING_FOLDER, FOLDER, engine_options, period_options
from sealbus.agents.cli.output import print_json


class Limit(click.ParamType[tuple[str, int]]):
    """Parameter type for `deny-to-allow=0`, converted to the name of a count and its largest allowed value."""

    name = "name=most"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return name and number, or fail with a usage error."""
        if isinstance(value, tuple):
            return value
        from sealbus.policies.backtest.report import BacktestReport

        name, _, most = str(value).partition("=")
        names = BacktestReport().counted()
        if name not in names or not (most.isascii() and most.isdecimal()):
            self.fail(f"{value!r} is not NAME=NUMBER with a NAME of {', '.join(names)}", param, ctx)
        return name, int(most)


@click.command("backtest")
@click.option("--policy", type=EXISTING, default=None, help="The candidate: a policy folder or a bundle file.")
@click.option(
    "--bundles",
    type=EXISTING_FOLDER,
    default=None,
    help="Without --policy: the bundle files that were in force; by default those kept by the notary or the export.",
)
@period_options
@engine_options
@click.option(
    "--fail-on",
    "limits",
    type=Limit(),
    multiple=True,
    help="Exit with 1 if more than this are counted, for instance deny-to-allow=0. May be repeated.",
)
@click.option(
    "--emit-tests",
    "emit",
    type=FOLDER,
    default=None,
    help="With --policy: write a Rego test for each way of deciding, as recorded, into this new or empty folder.",
)
@source_options
async def command(
    policy: Path | None,
    bundles: Path | None,
    since: int | None,
    until: int | None,
    engine: str,
    opa: Path | None,
    limits: tuple[tuple[str, int], ...],
    emit: Path | None,
    source: EvidenceSource,
) -> int:
    """Ask a policy about the recorded decisions of the audit stream, and compare.

    With --policy a candidate is asked, and changed decisions are shown, the risks first. Without it, each decision is made
    again by the policy that made it, and any difference is a finding. With --export the whole export is verified first.
    With --emit-tests, decisions that the candidate makes as they were recorded become tests of it.

    Exit codes: 0 done; 1 over a --fail-on limit, or the engine left questions unanswered; 2 usage; 4 records that do not
    verify or, without --policy, do not follow from their input and policy.
    """
    from sealbus.agents.cli.policy.backtest_run import as_document, backtest_export, print_result, run_backtest
    from sealbus.agents.evidence.decisions import POLICIES
    from sealbus.agents.evidence.files import LogPlace
    from sealbus.agents.runtime.open import open_audit_trail
    from sealbus.bus.audit.trail import AuditFilter

    if policy is not None and bundles is not None:
        raise click.UsageError("give either --policy or --bundles")
    if policy is None and emit is not None:
        raise click.UsageError("--emit-tests needs --policy")
    if (source.export is None) is not (source.root is None):
        raise click.UsageError("--export and --root go together")
    if (engine == "sidecar") is (opa is None):
        raise click.UsageError("--engine sidecar and --opa go together")

    wanted = AuditFilter(since=since or 0, until=until)
    if source.export is not None:
        result = await backtest_export(
            source.export, source.root_file(), wanted, policy=policy, bundles=bundles, opa=opa, limits=limits, emit=emit
        )
    else:
        settings = source.invocation.settings()
        own = bundles
        if policy is None and bundles is None:
            own = LogPlace.of(settings, source.log_folder).folder / POLICIES
        async with (
            open_audit_trail(source.invocation.as_name, settings) as trail,
            aclosing(trail.entries(wanted)) as entries,
        ):
            result = await run_backtest(entries, policy=policy, bundles=own, opa=opa, limits=limits, emit=emit)
    if source.invocation.as_json:
        print_json(as_document(result))
    else:
        print_result(result)
    return result.exit_code
