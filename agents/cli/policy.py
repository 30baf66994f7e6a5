"""`sealbus policy test|status|query`: Rego tests on both engines, and questions to a running OPA."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import click

from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json, print_table

__all__ = ["command"]


@click.group("policy")
def command() -> None:
    """Test policies, and ask a running OPA."""


@command.command("test")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option(
    "--opa", type=click.Path(path_type=Path), default=None, help="The opa executable; otherwise that on PATH."
)
@json_option
def test(folder: Path | None, opa: Path | None, as_json: bool) -> None:
    """Run the Rego tests of FOLDER (or of the starter policy) on the embedded engine and, where there is one, on OPA."""
    from sealbus.agents.dev.environment import starter_policy
    from sealbus.policies.policy_tests import run_tests

    found = opa or shutil.which("opa")
    results = run_tests(folder or starter_policy(), opa=Path(found) if found else None)
    if as_json:
        for one in results:
            print_json(
                {
                    "engine": one.engine,
                    "package": one.package,
                    "name": one.name,
                    "passed": one.passed,
                    "error": one.error,
                }
            )
    else:
        failed = [one for one in results if not one.passed]
        if failed:
            print_table(
                "failed",
                ("engine", "test", "where", "error"),
                [(one.engine, f"{one.package}.{one.name}", f"{one.file}:{one.line}", one.error) for one in failed],
            )
        engines = sorted({one.engine for one in results})
        note(f"{len(results) - len(failed)} passed, {len(failed)} failed, on {' and '.join(engines)}")
        if not found:
            note("opa was not found: only the embedded engine was asked")
    raise SystemExit(0 if results and all(one.passed for one in results) else 1)


@command.command("status")
@click.option("--opa", "url", default=None, metavar="URL", help="Ask this OPA, for instance http://127.0.0.1:8181.")
@config_option
@as_option("shop-web")
@json_option
def status(url: str | None, config: str | None, as_name: str, as_json: bool) -> None:
    """Print which policy is in force at the engine of the settings, asked as this workload; or at an OPA by its URL."""
    rows, well = asyncio.run(_opa_status(url) if url is not None else _engine_status(config, as_name))
    if as_json:
        print_json(rows)
    else:
        title = ("opa", url) if url is not None else ("engine", str(rows["engine"]))
        print_table("", title, [(name, str(value)) for name, value in rows.items()])
    raise SystemExit(0 if well else 1)


async def _opa_status(url: str) -> tuple[dict[str, object], bool]:
    from sealbus.policies.opa_admin import OpaAdmin

    facts = await OpaAdmin(url).status()
    rows: dict[str, object] = {"healthy": facts.healthy, "version": facts.version, "revisions": dict(facts.revisions)}
    return rows, facts.healthy


async def _engine_status(config: str | None, as_name: str) -> tuple[dict[str, object], bool]:
    from sealbus.agents.diagnosis import policy_status
    from sealbus.agents.settings import load_settings

    found = await policy_status(load_settings(config), as_name)
    rows: dict[str, object] = {
        "engine": found.engine,
        "revision": found.revision,
        "problem": found.problem,
        "missed": list(found.missed),
    }
    return rows, bool(found.revision) and not found.problem and not found.missed


@command.command("query")
@click.argument("query")
@click.option(
    "--opa", "url", required=True, metavar="URL", help="Of a running OPA, for instance http://127.0.0.1:8181."
)
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path, allow_dash=True),
    default=None,
    help="A JSON document; - for standard input.",
)
@json_option
def query(query: str, url: str, input_file: Path | None, as_json: bool) -> None:
    """Ask a running OPA an ad-hoc QUERY, for instance data.sealbus.authz.decision."""
    del as_json
    from sealbus.policies.opa_admin import OpaAdmin

    document = None
    if input_file is not None:
        document = json.loads(sys.stdin.read() if str(input_file) == "-" else input_file.read_text(encoding="utf-8"))
    print_json(asyncio.run(OpaAdmin(url).query(query, document)))
