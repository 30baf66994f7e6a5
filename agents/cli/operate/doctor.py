"""`sealbus doctor`: the settings in force with their origins, then a check of each part, with what to do."""

from __future__ import annotations

import click

from sealbus.agents.cli.options import as_command, config_option, json_option
from sealbus.agents.cli.output import print_json, print_table


@click.command("doctor")
@click.option("--opa", "url", default=None, metavar="URL", help="Also ask this running OPA.")
@click.option(
    "--nats-monitor", "monitors", multiple=True, metavar="URL", help="Also ask this monitoring port of a nats-server."
)
@click.option("--edge", "edges", multiple=True, metavar="URL", help="Also ask this health address of an edge.")
@config_option
@click.option(
    "--as",
    "as_name",
    default=None,
    metavar="NAME",
    help="Whose identity to use where the settings name one Workload API socket per workload.  [default: client.name]",
)
@json_option
@as_command
async def command(
    url: str | None,
    monitors: tuple[str, ...],
    edges: tuple[str, ...],
    config: str | None,
    as_name: str | None,
    as_json: bool,
) -> int:
    """Check settings, identity, NATS, streams and policy; exit code 1 if anything is wrong."""
    from sealbus.agents.cli.operate.examination import examine
    from sealbus.agents.runtime.settings.settings import load_settings

    settings = load_settings(config)
    checks = await examine(settings, as_name or settings.client.name, opa=url, nats_monitors=monitors, edges=edges)
    if as_json:
        print_json(
            {
                "settings": [
                    {"key": line.key, "value": line.value, "origin": str(line.origin)} for line in settings.lines
                ],
                "checks": [{"part": check.part, "ok": check.ok, "text": check.text} for check in checks],
            }
        )
    else:
        print_table(
            "settings in force",
            ("key", "value", "from"),
            [(line.key, line.value, str(line.origin)) for line in settings.lines],
        )
        print_table(
            "checks", ("part", "", "found"), [(check.part, "ok" if check.ok else "BAD", check.text) for check in checks]
        )
    return 0 if all(check.ok for check in checks) else 1
