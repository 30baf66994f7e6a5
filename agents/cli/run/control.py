"""`sealbus control run|keygen`: run the roles of the control process until SIGTERM; make the keys of the auth callout."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import click

from sealbus.agents.cli.options import FOLDER, config_option, json_option, log_option, observe_process, stop_signalled
from sealbus.agents.cli.output import log_to_stderr, note, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sealbus.agents.control.control import Opener
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.agents.runtime.settings.source import Flag


ROLES = MappingProxyType(
    {
        "callout": "sealbus.agents.control.callout.role:open_callout_role",
        "policy": "sealbus.agents.control.policy_server:open_policy_role",
        "notary": "sealbus.agents.control.notary.role:open_notary",
        "streams": "sealbus.agents.control.streams:open_streams",
        "console": "sealbus.agents.console.console:open_console",
        "revoker": "sealbus.agents.control.revoker:open_revoker",
        "witness": "sealbus.agents.control.witness.server:open_witness",
        "log": "sealbus.agents.control.log_server:open_log_server",
        "backups": "sealbus.agents.backup.age:open_backups",
    }
)
"""How each role is opened, as `module:name`; imported only where it runs."""
USUAL = ("callout", "policy", "notary")
"""The default roles of a process.

The revoker and the console have identities of their own, a witness is for logs of others, the log is served to readers
outside, and `streams` and `backups` are only for metrics.
"""


@click.group("control")
def command() -> None:
    """Run the central roles of a deployment."""


@command.command("keygen")
@click.argument("folder", type=FOLDER)
@json_option
def keygen(folder: Path, as_json: bool) -> None:
    """Make the keys of the auth callout in FOLDER, and print the public ones for the NATS server.

    The seeds (mode 0600) are for `control.callout.issuer`, `.xkey` and `.nkey`; public.env holds the variables that
    deploy/local/nats/nats.conf names.
    """
    from sealbus.agents.control.callout.key_files import write_keys

    public = write_keys(folder).public()
    if as_json:
        print_json({"folder": str(folder), **public})
    else:
        for name, value in public.items():
            click.echo(f"{name}={value}")
        note(f"seeds are in {folder}, only for the responders")


@command.command("run")
@click.option(
    "--roles",
    default=",".join(USUAL),
    show_default=True,
    metavar="ROLE,...",
    help="Roles of this process; if only one may act at a time, it is elected among all processes with the role.",
)
@click.option("--health", default=None, metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics here.")
@config_option
@json_option
@log_option
def run(roles: str, health: str | None, config: str | None, as_json: bool, log_json: bool) -> None:
    """Run the chosen roles together; the process ends if one of them does."""
    chosen = tuple(dict.fromkeys(role.strip() for role in roles.split(",")))
    unknown = [role for role in chosen if role not in ROLES]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(ROLES)}", param_hint="--roles")
    log_to_stderr(as_json=log_json)
    asyncio.run(run_roles(chosen, health, config, as_json=as_json))


async def run_roles(
    roles: tuple[str, ...],
    health: str | None,
    config: str | None,
    *,
    as_json: bool,
    flags: Sequence[Flag] = (),
    ready_text: Callable[[Settings], str] | None = None,
) -> None:
    """Run `roles` together until a signal. `ready_text` returns the line to print once they run; by default their names."""
    from sealbus.agents.control.control import Control
    from sealbus.agents.runtime.health import Probes
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.telemetry import Counters

    settings = load_settings(config, flags=flags)
    counters = Counters()
    stop = stop_signalled()
    control = Control({role: partial(_opener(role), settings, counters=counters) for role in roles})
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        probes = Probes(healthy=dict, ready=control.not_ready)
        address = health or settings.health.address
        await observe_process(stack, ",".join(roles), counters, address, lambda: probes)
        running = group.create_task(control.run(stop), name="control")
        waiting = group.create_task(control.started.wait(), name="control-started")
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if running.done():
            return
        if as_json:
            print_json({"ready": True, "roles": list(roles)})
        else:
            note(ready_text(settings) if ready_text is not None else f"control runs: {', '.join(roles)}")


def _opener(role: str) -> Opener:
    module, _, name = ROLES[role].partition(":")
    return cast("Opener", getattr(importlib.import_module(module), name))
