"""The command: `python -m stack up|run|demo|down`, with this folder's parent on PYTHONPATH; `make stack` and the like."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import click

from sealbus.agents.cli.options import stop_signalled
from sealbus.agents.cli.output import note
from sealbus.agents.cli.run.demo import ScenePlayer
from sealbus.agents.dev.demo.payments import NEXT_DAY
from sealbus.agents.dev.demo.play import SCENES
from sealbus.agents.dev.demo.stage import stage_before
from sealbus.envelopes.errors import ConfigurationError, SealbusError
from stack.backstage import StackBackstage
from stack.fence import OPENED
from stack.machine import machine
from stack.ports import Ports
from stack.regions import HOME, OTHER, RegionPorts, open_regions
from stack.running import Lives, open_stack
from stack.site import Site
from stack.soak import RECORDS_BYTES, Report, Soak
from stack.state import State

UP_SECONDS: Final = 240.0
DOWN_SECONDS: Final = 60.0
_LOOK_EVERY: Final = 0.1

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(".stack"),
    show_default=True,
    callback=lambda _context, _option, path: path.absolute(),
    help="Where its state is; short, because sockets are in it.",
)


@click.group()
def command() -> None:
    """Run SPIRE, NATS, OPA, the control process, the edge and the example agents on this machine, without containers."""


@command.command("run")
@_folder
@click.option("--free-ports", is_flag=True, help="Use whatever ports are free, in place of the usual ones.")
@click.option("--svid-ttl", default=600, show_default=True, type=click.IntRange(20, 86_400), help="Seconds.")
def run(folder: Path, free_ports: bool, svid_ttl: int) -> None:
    """Run it here until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lives = Lives(x509=svid_ttl, jwt=max(60, svid_ttl // 2))
    with Ports.held() if free_ports else nullcontext(Ports()) as ports:
        asyncio.run(_run(Site(folder=folder, ports=ports), lives))


def _need_root() -> None:
    if os.geteuid():
        raise ConfigurationError("the stack needs root: SPIRE tells workloads on one machine apart by their users")


async def _run(site: Site, lives: Lives) -> None:
    _need_root()
    stop = stop_signalled()
    async with open_stack(site, lives=lives) as stack:
        opas = {name: program.pid for name, program in stack.programs.items() if name.startswith("opa-")}
        state = State(site=stack.site, pid=os.getpid(), opas=opas)
        state.write()
        note(f"ready: edge at {site.resource}, logs in {site.logs}")
        note(OPENED)
        try:
            await stop.wait()
        finally:
            state.remove()


@command.command("regions")
@_folder
def regions(folder: Path) -> None:
    """Run two regions of three servers here, with an agent in each, until SIGTERM or Ctrl-C."""
    with Ports.held() as ports, RegionPorts.held() as servers:
        asyncio.run(_regions(Site(folder=folder, ports=ports), servers))


async def _regions(site: Site, ports: RegionPorts) -> None:
    _need_root()
    stop = stop_signalled()
    async with open_regions(site, ports) as running:
        for region in (HOME, OTHER):
            urls = ", ".join(server.url for server in running.servers[region])
            note(f"ready: {region} at {urls}")
        note(f"logs in {running.site.logs}")
        await stop.wait()


@command.command("up")
@_folder
@click.option("--free-ports", is_flag=True)
@click.option("--svid-ttl", default=600, show_default=True, type=click.IntRange(20, 86_400), help="Seconds.")
def up(folder: Path, free_ports: bool, svid_ttl: int) -> None:
    """Start it in the background, and return when all of it is well."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    arguments = ["--folder", str(folder), "--svid-ttl", str(svid_ttl), *(["--free-ports"] if free_ports else [])]
    log = folder.with_suffix(".log")
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack", "run", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    end = time.monotonic() + UP_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            raise ConfigurationError(f"the stack did not start: {lines[-1] if lines else process.returncode}")
        if (folder / "stack.json").exists() and State.read(folder).pid == process.pid:
            note(f"the stack runs: edge at {State.read(folder).site.resource}; `make stack-down` stops it")
            note(OPENED)
            return
        time.sleep(_LOOK_EVERY)
    process.terminate()
    raise ConfigurationError(f"the stack is not well after {UP_SECONDS:g} s; see {log}")


@command.command("demo")
@_folder
@click.option("--json", "as_json", is_flag=True)
def demo(folder: Path, as_json: bool) -> None:
    """Play the scenes of `sealbus demo` on the stack that runs."""
    state = State.read(folder)
    backstage = StackBackstage(state.site, state.opas)
    shown = ScenePlayer(as_json=as_json)
    asyncio.run(shown.play(stage_before(backstage), (*SCENES, *NEXT_DAY)))
    shown.end()
    raise SystemExit(0 if shown.ok else 1)


@command.command("soak")
@_folder
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(10, 86_400))
@click.option("--rate", default=200.0, show_default=True, type=click.FloatRange(1, 10_000), help="Messages a second.")
@click.option("--free-ports", is_flag=True)
@click.option("--svid-ttl", default=60, show_default=True, type=click.IntRange(20, 86_400), help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="One object, and nothing about the machine.")
def soak(folder: Path, seconds: float, rate: float, free_ports: bool, svid_ttl: int, as_json: bool) -> None:
    """Start a stack of its own, work on it while everything rotates, and print the counts."""
    lives = Lives(x509=svid_ttl, jwt=max(60, svid_ttl))
    with Ports.held() if free_ports else nullcontext(Ports()) as ports:
        report = asyncio.run(_soak(Site(folder=folder, ports=ports), lives, seconds=seconds, rate=rate))
    click.echo(json.dumps(report.document(), indent=1))
    if not as_json:
        note(machine())
    raise SystemExit(1 if report.problems else 0)


async def _soak(site: Site, lives: Lives, *, seconds: float, rate: float) -> Report:
    async with open_stack(site, lives=lives, audit=int(seconds * rate * RECORDS_BYTES)) as stack:
        note(f"the stack runs; {rate:g} messages a second for {seconds:g} s")
        return await Soak(stack, seconds=seconds, rate=rate).run()


@command.command("down")
@_folder
def down(folder: Path) -> None:
    """Stop it, and return when all of it has ended."""
    state = State.read(folder)
    os.kill(state.pid, signal.SIGTERM)
    end = time.monotonic() + DOWN_SECONDS
    while time.monotonic() < end:
        try:
            os.kill(state.pid, 0)
        except ProcessLookupError:
            note("the stack is stopped")
            return
        time.sleep(_LOOK_EVERY)
    raise ConfigurationError(f"process {state.pid} does not end; its logs are in {state.site.logs}")


if __name__ == "__main__":
    try:
        command()
    except SealbusError as failure:
        click.echo(f"stack: {failure.detail} [{failure.code}]", err=True)
        sys.exit(1)
