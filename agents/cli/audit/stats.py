"""`sealbus audit stats`: counts of the decisions and outcomes that verify."""

from __future__ import annotations

import click

from sealbus.agents.cli.audit.source import EvidenceSource, source_options
from sealbus.agents.cli.audit.verify import findings_text
from sealbus.agents.cli.options import period_options
from sealbus.agents.cli.output import note, print_json, print_table, progress_bar

_UNVERIFIED = 4


@click.command("stats")
@period_options
@source_options
def stats(since: int | None, until: int | None, source: EvidenceSource) -> int:
    """Count decisions and outcomes by agent, action, verdict and code, over all time or a span of it.

    The whole log is verified first; exit code 4 with any finding. Records that do not verify are not counted.
    """
    from sealbus.agents.evidence.verify import verify_export
    from sealbus.envelopes.export.tally import Span

    span = Span(since or 0, until)
    trusted = source.trusted_root()
    with source.opened(trusted) as files, progress_bar("counting") as progress:
        report = verify_export(files, trusted, span=span, progress=progress)
    rows = sorted(report.tally.rows.items())
    if source.invocation.as_json:
        for row, count in rows:
            print_json({**row._asdict(), "count": count})
    else:
        columns = ["agent", "action", "verdict", "code", "count"]
        print_table("", columns, [[*map(str, row), str(count)] for row, count in rows])
    if report.count:
        note(f"NOT VERIFIED: {findings_text(report.count)}, named by `sealbus audit verify`")
    return _UNVERIFIED if report.count else 0
