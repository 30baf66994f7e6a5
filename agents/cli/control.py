"""`sealbus control run`: the roles of the control process, until SIGTERM."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import click

from sealbus.agents.cli.options import config_option, json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.stopping import stop_signalled

if TYPE_CHECKING:
    from sealbus.agents.control.control import Opener

__all__ = ["ROLES", "command"]

ROLES = MappingProxyType(
    {
        "callout": "sealbus.agents.control.callout.opening:open_callout",
        "policy": "sealbus.agents.control.policy_server.opening:open_policy_server",
        "notary": "sealbus.agents.control.notary.opening:open_notary",
    }
)
"""What opens each role, as `module:name`: imported only where it runs."""


@click.group("control")
def command() -> None:
    """Run what a deployment has beside its workers and its edge."""


@command.command("run")
@click.option(
    "--roles",
    default=",".join(ROLES),
    show_default=True,
    metavar="ROLE,...",
    help="Roles of this process; what only one may do at a time is elected among all processes with the role.",
)
@click.option("--health", default=None, metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics here.")
@config_option
@json_option
def run(roles: str, health: str | None, config: str | None, as_json: bool) -> None:
    """Run the chosen roles side by side; the process ends if one of them does."""
    chosen = tuple(dict.fromkeys(role.strip() for role in roles.split(",")))
    unknown = [role for role in chosen if role not in ROLES]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(ROLES)}", param_hint="--roles")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    asyncio.run(_run(chosen, health, config, as_json=as_json))


async def _run(roles: tuple[str, ...], health: str | None, config: str | None, *, as_json: bool) -> None:
    from sealbus.agents.control.control import Control
    from sealbus.agents.health import HealthServer, Probes
    from sealbus.agents.settings import load_settings
    from sealbus.bus.counters import Counters

    settings = load_settings(config)
    counters = Counters()
    stop = stop_signalled()
    async with AsyncExitStack() as stack:
        control = Control(
            {role: await stack.enter_async_context(_opener(role)(settings, counters=counters)) for role in roles}
        )
        address = health or settings.health
        if address is not None:
            probes = Probes(healthy=dict, ready=control.not_ready)
            server = await stack.enter_async_context(HealthServer(address, probes=probes, counters=counters))
            note(f"health at port {server.port}")
        if as_json:
            print_json({"ready": True, "roles": list(roles)})
        else:
            note(f"control runs: {', '.join(roles)}")
        await control.run(stop)


def _opener(role: str) -> Opener:
    module, _, name = ROLES[role].partition(":")
    return cast("Opener", getattr(importlib.import_module(module), name))
