"""`sealbus dev`: everything on this machine, in one terminal."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from pathlib import Path

import click

from sealbus.agents.cli.options import EXISTING_FOLDER, PATH, engine_options, json_option, log_option, stop_signalled
from sealbus.agents.cli.output import log_to_stderr, note, print_json
from sealbus.agents.runtime.settings.state_folder import DEV_LOCK, STARTER_AGENTS, STATE_FOLDER, is_locked


@click.command("dev")
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="An agent in addition to those of sealbus.toml.")
@click.option("--state", type=PATH, default=Path(STATE_FOLDER), show_default=True)
@click.option("--port", type=click.IntRange(0, 65_535), default=4222, show_default=True, help="NATS; 0: any free port.")
@click.option(
    "--edge-port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="Edge; 0: any free port."
)
@click.option(
    "--idp-port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Of the development identity provider; 0: any free port.",
)
@click.option(
    "--console-port",
    type=click.IntRange(0, 65_535),
    default=8081,
    show_default=True,
    help="Console; 0: any free port.",
)
@click.option("--console/--no-console", default=True, help="Show what happens in a browser.")
@engine_options
@click.option(
    "--policy",
    type=EXISTING_FOLDER,
    default=None,
    help="A folder of Rego and data; by default that of sealbus.toml, or the starter policy.",
)
@click.option("--watch/--no-watch", default=True, help="Publish the policy folder again when it changes.")
@click.option(
    "--fast", is_flag=True, help="Let NATS acknowledge before writing to disk: a power failure loses up to 2 minutes."
)
@click.option("--notary/--no-notary", default=True, help="Keep a verifiable log of the audit stream.")
@click.option("--clean", is_flag=True, help="Remove the state folder first.")
@json_option
@log_option
def command(
    agents: tuple[str, ...],
    state: Path,
    port: int,
    edge_port: int,
    idp_port: int,
    console_port: int,
    console: bool,
    engine: str,
    opa: Path | None,
    policy: Path | None,
    watch: bool,
    fast: bool,
    notary: bool,
    clean: bool,
    as_json: bool,
    log_json: bool,
) -> None:
    """Run NATS, identities, policy, identity provider, edge, notary and console, and the agents that sealbus.toml names.

    Agents are run by the interpreter of `.venv` in this folder, if there is one, and started again when their files change.
    """
    from sealbus.agents.dev.environment import DevOptions
    from sealbus.agents.dev.settings_file import read_declared

    log_to_stderr(as_json=log_json, level=logging.WARNING)

    if clean:
        if is_locked(state, DEV_LOCK):
            raise click.UsageError(f"{state} is in use by a running `sealbus dev`: stop that one before --clean")
        shutil.rmtree(state, ignore_errors=True)
    declared = read_declared(Path("sealbus.toml"))
    policy = policy or declared.policy
    options = DevOptions(
        folder=state,
        agents=agents if policy is declared.policy is not None else tuple(dict.fromkeys((*STARTER_AGENTS, *agents))),
        declared=declared,
        port=port,
        edge_port=edge_port,
        idp_port=idp_port,
        console_port=console_port if console else None,
        engine=engine,
        opa=opa,
        policy=policy,
        sync=not fast,
        notary=notary,
        development=True,
    )
    from sealbus.agents.runtime.tracing import SAMPLER, exporting_spans

    # The developer looks at each trace here. Agents inherit this environment.
    os.environ.setdefault(SAMPLER, "parentbased_always_on")
    with exporting_spans("edge"):
        asyncio.run(_run(options, watch=watch, as_json=as_json, log_json=log_json))


async def _run(options: object, *, watch: bool, as_json: bool, log_json: bool) -> None:
    from sealbus.agents.dev.environment import DevOptions, open_environment, republish

    if not isinstance(options, DevOptions):
        raise TypeError("options")
    stop = stop_signalled()
    async with open_environment(options) as environment, asyncio.TaskGroup() as group:
        watching = group.create_task(republish(environment)) if watch else None
        if options.declared.run:
            from sealbus.agents.cli.run.processes import run_project

            targets = list(options.declared.run.values())
            group.create_task(
                run_project(targets, python=_python(), config=environment.settings_file, stop=stop, log_json=log_json)
            )
        if as_json:
            print_json(
                {
                    "ready": True,
                    "nats": environment.nats.url,
                    "idp": environment.idp.issuer,
                    "edge": environment.edge.front.resource,
                    "console": environment.console,
                    "settings": str(environment.settings_file),
                    "policy": str(environment.policy),
                    "engine": options.engine,
                    "agents": sorted(options.declared.run),
                    "unused": list(options.declared.unused),
                }
            )
        else:
            note(f"ready: NATS at {environment.nats.url}, policy {environment.policy} ({options.engine})")
            note(f"edge at {environment.edge.front.resource}")
            if environment.console:
                note(f"console at {environment.console}")
            note(f"development IdP, without passwords: {environment.idp.issuer}")
            if options.declared.unused:
                note(f"settings of sealbus.toml not used here: {', '.join(options.declared.unused)}")
            note("in other terminals, in this folder, for instance:")
            if not options.declared.run:
                note("  sealbus worker run app.py:agent")
                note("""  sealbus pub task.inventory.update '{"item_id": "42", "quantity": 3}' --user alice --wait""")
            note("  sealbus audit tail --follow")
            note("  sealbus token --user alice")
            if not options.sync:
                note(
                    "--fast: NATS ACKNOWLEDGES BEFORE IT WRITES TO DISK; a power failure loses up to two minutes of work"
                )
            note("stop with Ctrl-C; --clean removes the state folder at the next start")
        await stop.wait()
        if watching is not None:
            watching.cancel()
    if not as_json:
        note("stopped")


def _python() -> str:
    """Return the interpreter of the project in this folder, or else the interpreter of this process."""
    own = Path(".venv", "bin", "python")
    return str(own.absolute()) if own.exists() else sys.executable
