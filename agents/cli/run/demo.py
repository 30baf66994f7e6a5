"""`sealbus demo`: play the scenes, print each, and fail if one does not end as expected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import PATH, engine_options, json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.runtime.settings.state_folder import STATE_FOLDER

if TYPE_CHECKING:
    from sealbus.agents.dev.demo.play import SceneResult
    from sealbus.agents.dev.demo.scene import Scene
    from sealbus.agents.dev.demo.stage import Stage


@click.command("demo")
@engine_options
@click.option("--state", type=PATH, default=Path(STATE_FOLDER) / "demo", show_default=True)
@click.option(
    "--export",
    "evidence",
    type=PATH,
    default=None,
    metavar="DIR",
    help="Keep a log here for `sealbus audit verify`; root.json is written next to the folder.",
)
@json_option
def command(engine: str, opa: Path | None, state: Path, evidence: Path | None, as_json: bool) -> None:
    """Play the scenes on their own bus: real NATS, Workload API, policy engine and audit stream."""
    raise SystemExit(0 if asyncio.run(_demo(engine, opa, state, evidence, as_json=as_json)) else 1)


async def _demo(engine: str, opa: Path | None, state: Path, evidence: Path | None, *, as_json: bool) -> bool:
    from sealbus.agents.dev.demo.payments import NEXT_DAY
    from sealbus.agents.dev.demo.play import SCENES
    from sealbus.agents.dev.demo.stage import open_stage
    from sealbus.agents.dev.held_port import held_port

    player = ScenePlayer(as_json=as_json)
    # The second start uses the same addresses, because tokens name them.
    with held_port() as edge, held_port() as idp:
        opening = partial(open_stage, state, engine=engine, opa=opa, ports=(edge, idp))
        await player.play(opening(rotate=True), SCENES)
        if not as_json:
            note("everything was stopped and every key replaced; it is started again")
        await player.play(opening(evidence=evidence, again=True), NEXT_DAY)
    player.end()
    if evidence is not None and not as_json:
        note(f"the log is in {evidence}: sealbus audit verify {evidence} --root {evidence.parent / 'root.json'}")
    return player.ok


class ScenePlayer:
    """Plays scenes, prints each result as the scene ends, and a summary at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._results: list[SceneResult] = []
        self._records = 0
        self._findings = 0

    @property
    def ok(self) -> bool:
        """Whether all ended as expected, and every record verified."""
        return all(result.ok for result in self._results) and not self._findings

    async def play(self, opening: AbstractAsyncContextManager[Stage], scenes: Sequence[Scene]) -> None:
        """Open the stage, play `scenes`, and close it."""
        from sealbus.agents.dev.demo.play import play

        async with opening as stage:
            async for result in play(scenes, stage):
                self._results.append(result)
                if not self._as_json:
                    _print(result)
            self._records += len(stage.entries)
            self._findings += len(stage.findings)

    def end(self) -> None:
        """Print the summary."""
        if self._as_json:
            scenes = [_document(result) for result in self._results]
            print_json({"scenes": scenes, "ok": self.ok, "records": self._records})
        else:
            verdict = "all as expected" if self.ok else "FAILED"
            counts = f"{self._records} records read back and verified, {self._findings} findings"
            note(f"{len(self._results)} scenes; {counts}; {verdict}")


def _document(result: SceneResult) -> dict[str, object]:
    return {
        "name": result.scene.name,
        "expected": result.scene.expected.got,
        "got": result.got.got,
        "code": result.got.code,
        "ok": result.ok,
    }


def _print(result: SceneResult) -> None:
    """Print agent, user and action of a scene, and the decision with code and reasons."""
    scene, got = result.scene, result.got
    why = ", ".join((got.code, *got.reasons) if got.code else got.reasons)
    click.echo(f"{'ok  ' if result.ok else 'FAIL'} {got.got!s:<8} {scene.name}{f': {why}' if why else ''}")
    click.echo(f"              {scene.actor}{f', for {scene.user}' if scene.user else ''}: {scene.attempt}")
    if not result.ok:
        wanted = scene.expected
        click.echo(f"              expected {wanted.got} {', '.join((wanted.code, *wanted.reasons))}")
