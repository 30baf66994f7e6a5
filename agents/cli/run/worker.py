"""`sealbus worker run MODULE:AGENT`: run one agent's handlers until SIGTERM, then drain."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import config_option, ended_by, json_option, stop_signalled
from sealbus.agents.cli.output import note, print_json

if TYPE_CHECKING:
    from sealbus.agents.sdk.agent import Agent

__all__ = ["command", "load_agent"]


@click.group("worker")
def command() -> None:
    """Run an agent's handlers."""


@command.command("run")
@click.argument("target", metavar="MODULE:AGENT")
@click.option("--concurrency", default=None, type=click.IntRange(1, 10_000), help="How many handlers run at a time.")
@click.option("--health", default=None, metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics here.")
@config_option
@json_option
def run(target: str, concurrency: int | None, health: str | None, config: str | None, as_json: bool) -> None:
    """Run the handlers of AGENT in MODULE (a dotted name, or a file such as app.py)."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    agent = load_agent(target)
    drained = asyncio.run(_run(agent, concurrency, health, config, as_json=as_json))
    raise SystemExit(0 if drained else 1)


def load_agent(target: str) -> Agent:
    """Return the `Agent` that `MODULE:AGENT` names; raise `ConfigurationError` with one line if there is none."""
    from sealbus.agents.sdk.agent import Agent
    from sealbus.envelopes.errors import ConfigurationError

    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f"{target}: give MODULE:AGENT, for instance app.py:agent")
    try:
        if module_name.endswith(".py"):
            path = Path(module_name)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None or not path.exists():
                raise ConfigurationError(f"{module_name}: no such file")
            # As Python does for a file that it runs: modules in the same folder can be imported.
            sys.path.insert(0, str(path.absolute().parent))
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, "")
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{module_name}: {error}") from error
    agent = getattr(module, name, None)
    if not isinstance(agent, Agent):
        raise ConfigurationError(f"{target}: {name} is not an Agent")
    return agent


async def _run(agent: Agent, concurrency: int | None, health: str | None, config: str | None, *, as_json: bool) -> bool:
    from sealbus.agents.runtime.health import HealthServer, Probes
    from sealbus.agents.runtime.open import open_node
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.agents.runtime.worker import Worker, WorkerLimits, settle_collector

    settings = load_settings(config)
    stop = stop_signalled()
    limits = WorkerLimits(**dict(settings.worker), **dict(settings.limits))
    if concurrency:
        limits = replace(limits, concurrency=concurrency)
    address = health or settings.health.address
    async with AsyncExitStack() as stack:
        async with ended_by(stop):
            node = await stack.enter_async_context(open_node(agent.name, settings))
            worker = await stack.enter_async_context(Worker(agent, node, limits))
        if stop.is_set():
            return True
        if address is not None:
            probes = Probes(healthy=dict, ready=worker.not_ready, notes=worker.notes)
            server = await stack.enter_async_context(HealthServer(address, probes=probes, counters=node.counters))
            note(f"health at port {server.port}")
        running = asyncio.ensure_future(worker.run(stop))
        waiting = asyncio.ensure_future(worker.ready.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        settle_collector()
        if as_json:
            print_json({"ready": True, "agent": agent.name, "identity": str(node.own)})
        else:
            note(f"{agent.name} runs as {node.own}: {', '.join(route.subject for route in worker.routes.routes)}")
        return await running
