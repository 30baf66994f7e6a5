"""`sealbus policy`: the group of its subcommands, and the short ones `test`, `query` and `opa-config`."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import click

from sealbus.agents.cli.options import EXISTING_FILE, EXISTING_FOLDER, PATH, PATH_OR_INPUT, json_option, opa_option
from sealbus.agents.cli.output import note, print_json, print_table
from sealbus.agents.cli.policy import backtest, new_action
from sealbus.agents.cli.policy import build as policy_build
from sealbus.agents.cli.policy import explain as policy_explain
from sealbus.agents.cli.policy import fetch as policy_fetch
from sealbus.agents.cli.policy import push as policy_push
from sealbus.agents.cli.policy import status as policy_status


@click.group("policy")
def command() -> None:
    """Write, test, build, sign and push policies, ask a running OPA, and try a policy on recorded decisions."""


@command.command("test")
@click.argument("folder", type=EXISTING_FOLDER, required=False)
@opa_option
@click.option("--part", is_flag=True, help="A part of a platform or a team, which need not have the entry points.")
@json_option
def test(folder: Path | None, opa: Path | None, part: bool, as_json: bool) -> None:
    """Run the Rego tests of FOLDER (or of the starter policy) on the embedded engine and, if available, on OPA."""
    from sealbus.agents.dev.environment import starter_policy
    from sealbus.policies.rego_tests import run_tests

    program = opa or shutil.which("opa")
    results = run_tests(folder or starter_policy(), opa=Path(program) if program else None, part=part)
    if as_json:
        for result in results:
            print_json(
                {
                    "engine": result.engine,
                    "package": result.package,
                    "name": result.name,
                    "passed": result.passed,
                    "error": result.error,
                }
            )
    else:
        failed = [result for result in results if not result.passed]
        if failed:
            print_table(
                "failed",
                ("engine", "test", "where", "error"),
                [
                    (result.engine, f"{result.package}.{result.name}", f"{result.file}:{result.line}", result.error)
                    for result in failed
                ],
            )
        engines = sorted({result.engine for result in results})
        note(f"{len(results) - len(failed)} passed, {len(failed)} failed, on {' and '.join(engines)}")
        if not program:
            note("opa was not found: only the embedded engine was used")
    raise SystemExit(0 if results and all(result.passed for result in results) else 1)


@command.command("query")
@click.argument("query")
@click.option(
    "--opa", "url", required=True, metavar="URL", help="URL of a running OPA, for instance http://127.0.0.1:8181."
)
@click.option("--input", "input_file", type=PATH_OR_INPUT, default=None, help="A JSON document; - for standard input.")
@json_option
def query(query: str, url: str, input_file: Path | None, as_json: bool) -> None:
    """Ask a running OPA an ad-hoc QUERY, for instance data.sealbus.authz.decision."""
    del as_json
    from sealbus.policies.opa.admin import OpaAdmin

    document = None
    if input_file is not None:
        document = json.loads(sys.stdin.read() if str(input_file) == "-" else input_file.read_text(encoding="utf-8"))
    print_json(asyncio.run(OpaAdmin(url).query(query, document)))


@click.command("opa-config")
@click.option("--url", required=True, metavar="URL", help="The policy server: https, with a host that its SVID names.")
@click.option(
    "--signer", "signers", type=EXISTING_FILE, required=True, multiple=True,
    help="Public key in PEM of policy.serve_key; both, while one replaces the other."
)  # fmt: skip
@click.option("--certificate", type=PATH, required=True, help="OPA's own SVID, in a file that is kept up to date.")
@click.option("--private-key", type=PATH, required=True, help="Its key.")
@click.option("--trust-bundle", type=PATH, required=True, help="The trust domain's X.509 bundle.")
@click.option("--persist", type=PATH, default=None, help="Folder to start from without the policy server.")
def opa_config(
    url: str, signers: tuple[Path, ...], certificate: Path, private_key: Path, trust_bundle: Path, persist: Path | None
) -> None:
    """Print OPA's configuration as JSON, for `opa run --server --config-file FILE`."""
    from sealbus.envelopes.trust.keys import read_public_key
    from sealbus.policies.opa import config

    keys = [read_public_key(file.read_bytes(), name=str(file)) for file in signers]
    files = config.OpaFiles(certificate=certificate, key=private_key, bundle=trust_bundle)
    click.echo(config.opa_config(url, keys, files, persist=persist), nl=False)


for _added in (
    policy_build.build,
    policy_build.sign,
    policy_fetch.fetch,
    opa_config,
    policy_push.push,
    policy_push.rollback,
    policy_status.status,
    backtest.command,
    new_action.command,
    policy_explain.explain,
):
    command.add_command(_added)
