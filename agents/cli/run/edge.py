"""`sealbus edge serve|exit`: requests from HTTP with OAuth, and requests to HTTP, until SIGTERM; then a graceful stop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import click

from sealbus.agents.cli.options import (
    PATH,
    config_option,
    ended_by,
    json_option,
    log_option,
    observe_process,
    stop_signalled,
)
from sealbus.agents.cli.output import log_to_stderr, note, print_json


@click.group("edge")
def command() -> None:
    """Serve users and backends over HTTP."""


@command.command("serve")
@click.option("--address", default=None, metavar="HOST:PORT", help="Listen here, instead of edge.address.")
@click.option("--health", default=None, metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics here.")
@config_option
@json_option
@log_option
def serve(address: str | None, health: str | None, config: str | None, as_json: bool, log_json: bool) -> None:
    """Accept access tokens, mint user contexts, and pass tasks and calls on to agents."""
    log_to_stderr(as_json=log_json)
    from sealbus.agents.runtime.tracing import exporting_spans

    with exporting_spans("edge"):
        asyncio.run(_serve(address, health, config, as_json=as_json))


@command.command("exit")
@click.option("--health", default=None, metavar="HOST:PORT", help="Serve /healthz, /readyz and /metrics here.")
@config_option
@json_option
@log_option
def exit_(health: str | None, config: str | None, as_json: bool, log_json: bool) -> None:
    """Call the APIs in egress.apis for agents, with the APIs' tokens. The agent's policy decides about each request."""
    log_to_stderr(as_json=log_json)
    from sealbus.agents.runtime.tracing import exporting_spans

    with exporting_spans("exit"):
        drained = asyncio.run(_exit(health, config, as_json=as_json))
    raise SystemExit(0 if drained else 1)


@command.command("key")
@click.argument("file", type=PATH)
@json_option
def key(file: Path, as_json: bool) -> None:
    """Write a new key to FILE, which must not exist yet, readable by its owner alone.

    For edge.nonce_key, edge.token_key, edge.pseudonym_key, or edge.a2a.push_key.
    """
    from sealbus.agents.edge.oauth.private_file import write_key

    write_key(file)
    if as_json:
        print_json({"file": str(file)})
        return
    note(
        f"{file} is a new key; keep a copy of a key for pseudonyms with the log: without it no pseudonym can be revealed"
    )


@command.command("openapi")
@config_option
def openapi(config: str | None) -> None:
    """Print the OpenAPI document that the edge serves at /v1/openapi.json, from edge.schemas and edge.actions."""
    from sealbus.agents.edge.edge import openapi_of
    from sealbus.agents.runtime.open import deployment_of
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.envelopes.errors import ConfigurationError

    settings = load_settings(config)
    document = openapi_of(settings.edge, settings.names, deployment_of(settings).own_subjects)
    if document is None:
        raise ConfigurationError("edge.schemas names no files: write them with `sealbus agent schema`")
    print_json(document)


async def _serve(address: str | None, health: str | None, config: str | None, *, as_json: bool) -> None:
    from sealbus.agents.edge.edge import open_edge
    from sealbus.agents.runtime.health import Probes, Readiness
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.agents.runtime.settings.source import Flag
    from sealbus.agents.runtime.worker import settle_collector
    from sealbus.bus.background import Background

    settings = load_settings(config, flags=[Flag(option="--address", key="edge.address", value=address)])
    stop = stop_signalled()
    async with AsyncExitStack() as stack:
        async with ended_by(stop):
            edge = await stack.enter_async_context(open_edge(settings))
        if stop.is_set():
            return
        group = await stack.enter_async_context(Background())

        def probes() -> Probes:
            readiness, scheduling = Readiness(edge.node), edge.scheduling
            stack.callback(group.create_task(readiness.watch_engine(), name="readiness").cancel)
            return Probes(
                healthy=dict,
                ready=lambda: readiness.reasons() | (scheduling.not_ready() if scheduling is not None else {}),
                notes=lambda: readiness.notes() | edge.front.verifier.notes(),
            )

        await observe_process(stack, "edge", edge.node.counters, health or settings.health.address, probes)
        if as_json:
            print_json(
                {
                    "ready": True,
                    "identity": str(edge.node.own),
                    "resource": edge.front.resource,
                    "port": edge.port,
                    "token_port": edge.token_port,
                }
            )
        else:
            service = f", token service at port {edge.token_port}" if edge.token_port is not None else ""
            note(f"edge runs as {edge.node.own}: {edge.front.resource} at port {edge.port}{service}")
        settle_collector()
        await stop.wait()


async def _exit(health: str | None, config: str | None, *, as_json: bool) -> bool:
    from sealbus.agents.edge.egress.exit import open_exit
    from sealbus.agents.runtime.assembly import WorkerLimits
    from sealbus.agents.runtime.health import Probes
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.agents.runtime.worker import settle_collector
    from sealbus.bus.background import Background

    settings = load_settings(config)
    limits = WorkerLimits(**dict(settings.worker), **dict(settings.limits))
    stop = stop_signalled()
    async with AsyncExitStack() as stack:
        async with ended_by(stop):
            worker = await stack.enter_async_context(open_exit(settings, limits))
        if stop.is_set():
            return True
        probes = Probes(healthy=dict, ready=worker.not_ready, notes=worker.notes)
        address = health or settings.health.address
        await observe_process(stack, "exit", worker.node.counters, address, lambda: probes)
        group = await stack.enter_async_context(Background())
        running = group.create_task(worker.run(stop), name="exit")
        async with ended_by(stop):
            await worker.ready.wait()
        settle_collector()
        if as_json:
            print_json({"ready": True, "identity": str(worker.node.own), "apis": sorted(settings.egress.apis)})
        else:
            note(f"exit runs as {worker.node.own}: {', '.join(sorted(settings.egress.apis))}")
        return await running
