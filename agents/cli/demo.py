"""`sealbus demo`: play the scenes, print each, and fail if one surprises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from sealbus.agents.cli.options import json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.dev.defaults import STATE_FOLDER

__all__ = ["command"]


@click.command("demo")
@click.option("--engine", type=click.Choice(["embedded", "sidecar"]), default="embedded", show_default=True)
@click.option("--opa", type=click.Path(path_type=Path), default=None, help="The opa executable, for --engine sidecar.")
@click.option("--state", type=click.Path(path_type=Path), default=Path(STATE_FOLDER) / "demo", show_default=True)
@json_option
def command(engine: str, opa: Path | None, state: Path, as_json: bool) -> None:
    """Play the scenes on a bus of its own: real NATS, Workload API, policy engine and audit stream."""
    raise SystemExit(0 if asyncio.run(_demo(engine, opa, state, as_json=as_json)) else 1)


async def _demo(engine: str, opa: Path | None, state: Path, *, as_json: bool) -> bool:
    from sealbus.agents.demo.scenes import play
    from sealbus.agents.demo.stage import open_stage

    results = []
    async with open_stage(state, engine=engine, opa=opa) as stage:
        async for result in play(stage):
            results.append(result)
            if not as_json:
                mark = "ok  " if result.ok else "FAIL"
                click.echo(f"{mark} {result.got:<8} {result.name}{f' ({result.code})' if result.code else ''}")
                if not result.ok:
                    click.echo(f"     expected {result.expected} ({result.expected_code})")
        records, findings = stage.records, len(stage.findings)
    ok = all(result.ok for result in results)
    if as_json:
        print_json(
            {
                "scenes": [
                    {
                        "name": result.name,
                        "expected": result.expected,
                        "got": result.got,
                        "code": result.code,
                        "ok": result.ok,
                    }
                    for result in results
                ],
                "ok": ok,
                "records": records,
            }
        )
    else:
        note(
            f"{records} records read back and verified, {findings} findings; {'all as it must be' if ok else 'FAILED'}"
        )
    return ok
