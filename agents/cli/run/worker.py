"""`sealbus worker run MODULE:AGENT...`: run the handlers of agents until SIGTERM, then drain."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import config_option, ended_by, json_option, log_option, stop_signalled
from sealbus.agents.cli.output import log_to_stderr, note, print_json

if TYPE_CHECKING:
    from sealbus.agents.cli.run.several import RunOptions
    from sealbus.agents.runtime.process.in_flight import InFlightTable
    from sealbus.agents.runtime.process.loop_watch import LoopWatch
    from sealbus.agents.runtime.worker import Worker
    from sealbus.agents.sdk.agent import Agent


@click.group("worker")
def command() -> None:
    """Run an agent's handlers."""


@command.command("run")
@click.argument("targets", metavar="MODULE:AGENT...", nargs=-1, required=True)
@click.option("--concurrency", default=None, type=click.IntRange(1, 10_000), help="How many handlers run at a time.")
@click.option(
    "--processes",
    default=None,
    type=click.IntRange(1, 256),
    help="Run so many processes, each with all of the agents; one that ends is started again.",
)
@click.option("--reload", "reloading", is_flag=True, help="For development: start again when a .py file changes.")
@click.option(
    "--health",
    default=None,
    metavar="HOST:PORT",
    help="Serve /healthz, /readyz and /metrics here; of several processes, each at the port after the last.",
)
@click.option(
    "--supervised",
    default=None,
    nargs=3,
    type=int,
    hidden=True,
    help="Number of the process, and the descriptors of its line and of its memory.",
)
@config_option
@json_option
@log_option
def run(
    targets: tuple[str, ...],
    concurrency: int | None,
    processes: int | None,
    reloading: bool,
    health: str | None,
    supervised: tuple[int, int, int] | None,
    config: str | None,
    as_json: bool,
    log_json: bool,
) -> None:
    """Run the handlers of each AGENT in its MODULE (a dotted name, or a file such as app.py) until SIGTERM, then drain.

    Several agents in one process have an identity and a connection each. One that cannot run is tried again; others go on.
    """
    if supervised is None and (processes is not None or reloading):
        from sealbus.agents.cli.run.processes import run_processes

        raise SystemExit(
            run_processes(
                targets,
                processes=processes or 1,
                reloading=reloading,
                concurrency=concurrency,
                health=health,
                config=config,
                as_json=as_json,
                log_json=log_json,
            )
        )
    number, line, memory = supervised or (0, None, None)
    name = f"process {number}: " if number else ""
    log_to_stderr(name, as_json=log_json)
    from sealbus.agents.runtime.tracing import exporting_spans

    agents = load_agents(targets)
    with exporting_spans(",".join(agent.name for agent in agents)):
        drained = asyncio.run(_run(agents, concurrency, health, config, line=line, memory=memory, as_json=as_json))
    raise SystemExit(0 if drained else 1)


def load_agents(targets: Sequence[str]) -> list[Agent]:
    """Return the agents that `targets` name. Raises `ConfigurationError` as `load_agent`, and for an agent named twice."""
    from sealbus.envelopes.errors import ConfigurationError

    agents: dict[str, Agent] = {}
    files: dict[str, Path] = {}
    for target in targets:
        agent = load_agent(target, files)
        if agent.name in agents:
            raise ConfigurationError(
                f"{target}: agent {agent.name} is there already; --processes runs it several times"
            )
        agents[agent.name] = agent
    return list(agents.values())


def load_agent(target: str, files: dict[str, Path] | None = None) -> Agent:
    """Return the `Agent` that `MODULE:AGENT` names; raise `ConfigurationError` with one line if there is none.

    `files` has the files that this process has loaded, by the name of the module: each is loaded once.
    """
    from sealbus.agents.sdk.agent import Agent
    from sealbus.envelopes.errors import ConfigurationError

    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f"{target}: give MODULE:AGENT, for instance app.py:agent")
    try:
        if module_name.endswith(".py"):
            module = _module_of(Path(module_name), {} if files is None else files)
        else:
            sys.path.insert(0, "")
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{module_name}: {error}") from error
    agent = getattr(module, name, None)
    if not isinstance(agent, Agent):
        raise ConfigurationError(f"{target}: {name} is not an Agent")
    return agent


def _module_of(path: Path, files: dict[str, Path]) -> ModuleType:
    from sealbus.envelopes.errors import ConfigurationError

    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ConfigurationError(f"{path}: no such file")
    if (before := files.get(path.stem)) is not None:
        if before != path.resolve():
            raise ConfigurationError(f"{path}: {before} is this process's module {path.stem}: start a process for each")
        return sys.modules[path.stem]
    files[path.stem] = path.resolve()
    # Python does the same for a file that it runs: modules in the same folder can be imported.
    sys.path.insert(0, str(path.absolute().parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


async def _run(
    agents: Sequence[Agent],
    concurrency: int | None,
    health: str | None,
    config: str | None,
    *,
    line: int | None,
    memory: int | None,
    as_json: bool,
) -> bool:
    from sealbus.agents.cli.run.several import RunOptions, run_several
    from sealbus.agents.runtime.assembly import WorkerLimits
    from sealbus.agents.runtime.process.in_flight import tables_in
    from sealbus.agents.runtime.process.supervisor import ParentLine
    from sealbus.agents.runtime.settings.settings import load_settings

    settings = load_settings(config)
    stop = stop_signalled()
    limits = WorkerLimits(**dict(settings.worker), **dict(settings.limits))
    if concurrency:
        limits = replace(limits, concurrency=concurrency)
    # A handler that does not stop is replaced, at most once.
    places = 2 * limits.concurrency
    tables = tables_in(memory, agents=len(agents), places=places) if memory is not None else (None,) * len(agents)
    with ParentLine(line, stop) if line is not None else nullcontext() as parent:
        options = RunOptions(
            settings=settings,
            limits=limits,
            address=health or settings.health.address,
            on_ready=lambda worker: _print_ready(worker, as_json=as_json),
            on_started=parent.ready if parent is not None else lambda: None,
        )
        if len(agents) > 1:
            return await run_several(agents, tables, options, stop)
        return await _run_alone(agents[0], tables[0], options, stop)


async def _run_alone(agent: Agent, table: InFlightTable | None, options: RunOptions, stop: asyncio.Event) -> bool:
    from sealbus.agents.runtime.metric_export import exporting_metrics
    from sealbus.agents.runtime.open import open_node
    from sealbus.agents.runtime.process.loop_watch import LoopWatch
    from sealbus.agents.runtime.process.process_record import recorded_process
    from sealbus.agents.runtime.worker import Worker, settle_collector

    async with AsyncExitStack() as stack:
        async with ended_by(stop):
            node = await stack.enter_async_context(open_node(agent.name, options.settings))
            await stack.enter_async_context(recorded_process(node, declares=agent.declares))
            worker = await stack.enter_async_context(Worker(agent, node, options.limits, in_flight=table))
        if stop.is_set():
            return True
        # Started after the imports, which may block the loop longer than a handler should.
        watch = await stack.enter_async_context(LoopWatch())
        watch.count_in(node.counters)
        await stack.enter_async_context(exporting_metrics(agent.name, node.counters))
        if options.address is not None:
            await stack.enter_async_context(_probed(worker, options.address, watch))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(worker.run(stop), name=f"worker-{agent.name}")
            async with ended_by(stop):
                await worker.ready.wait()
            settle_collector()
            if not stop.is_set():
                options.on_started()
                options.on_ready(worker)
        return running.result()


@asynccontextmanager
async def _probed(worker: Worker, address: str, watch: LoopWatch) -> AsyncGenerator[None, None]:
    from sealbus.agents.runtime.health import HealthServer, Probes

    probes = Probes(healthy=dict, ready=worker.not_ready, notes=worker.notes)
    async with HealthServer(address, probes=probes, counters=worker.node.counters, watch=watch) as server:
        note(f"health of {worker.agent.name} at port {server.port}")
        yield


def _print_ready(worker: Worker, *, as_json: bool) -> None:
    if as_json:
        print_json({"ready": True, "agent": worker.agent.name, "identity": str(worker.node.own)})
    else:
        subjects = ", ".join(route.subject for route in worker.routes.routes)
        note(f"{worker.agent.name} runs as {worker.node.own}: {subjects}")
