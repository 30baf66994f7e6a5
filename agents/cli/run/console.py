"""`sealbus console`: serve the console to browsers until SIGTERM."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import config_option, json_option, log_option
from sealbus.agents.cli.output import log_to_stderr
from sealbus.agents.cli.run.control import run_roles

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.settings import Settings


@click.command("console")
@click.option("--address", default=None, metavar="HOST:PORT", help="Listen here instead of console.address.")
@click.option("--health", default=None, metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics here.")
@config_option
@json_option
@log_option
def command(address: str | None, health: str | None, config: str | None, as_json: bool, log_json: bool) -> None:
    """Show the deployment in a browser: decisions as they come and why, tasks, approvals, policy, and the log.

    Runs as the workload `console`, as `sealbus control run --roles console` does. `sealbus dev` has its own console. People
    log in at the identity provider of the settings. The policy decides what they may see and do (console.view,
    console.cancel), and each decision is recorded.
    """
    from sealbus.agents.runtime.settings.source import Flag

    def ready_text(settings: Settings) -> str:
        return f"console at {settings.console.url or f'http://{settings.console.address}'}"

    log_to_stderr(as_json=log_json)
    flags = [Flag(option="--address", key="console.address", value=address)]
    asyncio.run(run_roles(("console",), health, config, as_json=as_json, flags=flags, ready_text=ready_text))
