"""`sealbus demo`: play the scenes, print each, and fail if one does not end as expected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.runtime.settings.state_folder import STATE_FOLDER

if TYPE_CHECKING:
    from sealbus.agents.dev.demo.play import SceneResult
    from sealbus.agents.dev.demo.scene import Scene
    from sealbus.agents.dev.demo.stage import Stage

__all__ = ["command", "show_scenes"]


@click.command("demo")
@click.option("--engine", type=click.Choice(["embedded", "sidecar"]), default="embedded", show_default=True)
@click.option("--opa", type=click.Path(path_type=Path), default=None, help="The opa executable, for --engine sidecar.")
@click.option("--state", type=click.Path(path_type=Path), default=Path(STATE_FOLDER) / "demo", show_default=True)
@click.option(
    "--export",
    "evidence",
    type=click.Path(path_type=Path),
    default=None,
    metavar="DIR",
    help="Keep a log here for `sealbus audit verify`; root.json is written next to the folder.",
)
@json_option
def command(engine: str, opa: Path | None, state: Path, evidence: Path | None, as_json: bool) -> None:
    """Play the scenes on their own bus: real NATS, Workload API, policy engine and audit stream."""
    raise SystemExit(0 if asyncio.run(_demo(engine, opa, state, evidence, as_json=as_json)) else 1)


async def _demo(engine: str, opa: Path | None, state: Path, evidence: Path | None, *, as_json: bool) -> bool:
    from sealbus.agents.dev.demo.play import NEXT_DAY, SCENES
    from sealbus.agents.dev.demo.stage import open_stage, replace_keys
    from sealbus.agents.dev.environment import free_port

    opening = partial(open_stage, state, engine=engine, opa=opa, ports=(free_port(), free_port()))
    ok = await show_scenes(opening(), SCENES, as_json=as_json)
    await asyncio.to_thread(replace_keys, state)
    if not as_json:
        note("everything is stopped, every key replaced, and everything started again")
    ok = await show_scenes(opening(evidence=evidence, again=True), NEXT_DAY, as_json=as_json) and ok
    if evidence is not None and not as_json:
        note(f"the log is in {evidence}: sealbus audit verify {evidence} --root {evidence.parent / 'root.json'}")
    return ok


async def show_scenes(opening: AbstractAsyncContextManager[Stage], scenes: Sequence[Scene], *, as_json: bool) -> bool:
    """Open the stage, play `scenes`, print each as it ends, and return whether all ended as expected."""
    from sealbus.agents.dev.demo.play import play

    results = []
    async with opening as stage:
        async for result in play(scenes, stage):
            results.append(result)
            if not as_json:
                _print(result)
        records, findings = len(stage.entries), len(stage.findings)
    ok = all(result.ok for result in results) and not findings
    if as_json:
        print_json({"scenes": [_document(result) for result in results], "ok": ok, "records": records})
    else:
        verdict = "all as expected" if ok else "FAILED"
        note(f"{len(results)} scenes; {records} records read back and verified, {findings} findings; {verdict}")
    return ok


def _document(result: SceneResult) -> dict[str, object]:
    return {
        "name": result.scene.name,
        "expected": result.scene.expected.got,
        "got": result.got.got,
        "code": result.got.code,
        "ok": result.ok,
    }


def _print(result: SceneResult) -> None:
    """Print who acted, for whom, what was done, the decision, its code and reasons."""
    scene, got = result.scene, result.got
    why = ", ".join((got.code, *got.reasons) if got.code else got.reasons)
    click.echo(f"{'ok  ' if result.ok else 'FAIL'} {got.got!s:<8} {scene.name}{f': {why}' if why else ''}")
    click.echo(f"              {scene.who}{f', for {scene.user}' if scene.user else ''}: {scene.what}")
    if not result.ok:
        wanted = scene.expected
        click.echo(f"              expected {wanted.got} {', '.join((wanted.code, *wanted.reasons))}")
