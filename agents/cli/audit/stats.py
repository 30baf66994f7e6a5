"""`sealbus audit stats`: counts of the decisions and outcomes that verify, and processes without an end."""

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

    Then come the processes that started in it and whose end is not recorded: they run still, or were killed.

    The whole log is verified first; exit code 4 with any finding. Records that do not verify are not counted.
    """
    from sealbus.agents.evidence.verify import verify_export
    from sealbus.bus.inspection.documents import shown_time
    from sealbus.envelopes.export.processes import MOST_OPEN
    from sealbus.envelopes.export.tally import Span
    from sealbus.envelopes.printable import printable

    span = Span(since or 0, until)
    trusted = source.trusted_root()
    with source.opened(trusted) as files, progress_bar("counting") as progress:
        report = verify_export(files, trusted, span=span, progress=progress)
    rows, processes = sorted(report.tally.rows.items()), report.tally.processes
    started = sorted(processes.started.items(), key=lambda item: (item[1].time, item[0]))
    if source.invocation.as_json:
        for row, count in rows:
            print_json({**row._asdict(), "count": count})
        for run, start in started:
            time = shown_time(start.time)
            print_json({"agent": run.agent, "process": run.instance.hex(), "version": start.version, "started": time})
    else:
        columns = ["agent", "action", "verdict", "code", "count"]
        print_table("", columns, [[*map(str, row), str(count)] for row, count in rows])
        for run, start in started:
            line = (
                f"no end: {run.agent} {run.instance.hex()}, sealbus {start.version}, started {shown_time(start.time)}"
            )
            click.echo(printable(line))
    if processes.more:
        note(f"{processes.more} more processes started while {MOST_OPEN} had no end: whether they ended is not known")
    if report.count:
        note(f"NOT VERIFIED: {findings_text(report.count)}, named by `sealbus audit verify`")
    return _UNVERIFIED if report.count else 0
