"""`sealbus policy`: its subcommands, and `test` and `query`: Rego tests on both engines, questions to a running OPA."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import click

from sealbus.agents.cli import backtest, policy_build, policy_fetch, policy_opa, policy_push, policy_status
from sealbus.agents.cli.options import json_option
from sealbus.agents.cli.output import note, print_json, print_table

__all__ = ["command"]


@click.group("policy")
def command() -> None:
    """Test, build, sign and push policies, ask a running OPA, and try a policy on recorded decisions."""


@command.command("test")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option(
    "--opa", type=click.Path(path_type=Path), default=None, help="The opa executable; otherwise that on PATH."
)
@click.option("--part", is_flag=True, help="Of a platform or a team: it need not have the entry points.")
@json_option
def test(folder: Path | None, opa: Path | None, part: bool, as_json: bool) -> None:
    """Run the Rego tests of FOLDER (or of the starter policy) on the embedded engine and, where there is one, on OPA."""
    from sealbus.agents.dev.environment import starter_policy
    from sealbus.policies.policy_tests import run_tests

    found = opa or shutil.which("opa")
    results = run_tests(folder or starter_policy(), opa=Path(found) if found else None, part=part)
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


for _added in (
    policy_build.build,
    policy_build.sign,
    policy_fetch.fetch,
    policy_opa.opa_config,
    policy_push.push,
    policy_push.rollback,
    policy_status.status,
    backtest.command,
):
    command.add_command(_added)
