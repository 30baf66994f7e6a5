"""What a command imports: nothing heavy before it does its work, and nothing that its work does not need.

By what is in `sys.modules` of a process of its own, never by times.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "aiohttp",
    "authlib",
    "cryptography",
    "grpc",
    "httpx2",
    "nats",
    "opa_client",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "regorus",
    "requests",
    "rich",
    "sealbus.agents.runtime.open",
    "sealbus.bus.ports",
    "sealbus.policies.decision",
    "spiffe",
    "starlette",
    "uvicorn",
)
"""What takes long to import, and no words of a command need."""

SERVERS = (
    "authlib",
    "nats_server",
    "opa_client",
    "requests",
    "sealbus.agents.control",
    "sealbus.agents.dev",
    "sealbus.agents.edge",
    "starlette",
    "uvicorn",
)
"""Programs that a worker or a short command never is: the edge, the development provider, its NATS, OPA's administration."""


def loaded(code: str, among: tuple[str, ...]) -> list[str]:
    """Return which of the modules `among` a process has that runs `code`."""
    script = f"import sys\n{code}\nprint(*(one for one in {among!r} if one in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split("\n")[-2].split()


WORDS = """
import click
from sealbus.agents.cli.main import root
def look(group, path):
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        command.get_help(click.Context(command, info_name=name))
        if isinstance(command, click.Group):
            look(command, name)
        else:
            found.append(name)
found = []
look(root, "sealbus")
assert len(found) > 60, found
"""


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    assert loaded(WORDS, HEAVY) == []


def test_what_is_heavy_is_there_to_be_imported() -> None:
    # Otherwise a renamed module would never be found.
    imports = "\n".join(f"import {one}" for one in {*HEAVY, *SERVERS} - {"requests", "nats_server"})
    assert sorted(loaded(imports, HEAVY)) == sorted(HEAVY)


@pytest.mark.parametrize(
    "module",
    [
        "sealbus.agents.runtime.worker",
        "sealbus.agents.runtime.client",
        "sealbus.agents.runtime.open",
        "sealbus.agents.runtime.policy.source",
        "sealbus.policies.engines.embedded",
        "sealbus.agents.cli.audit.entries",
        "sealbus.agents.cli.policy.backtest_run",
        "sealbus.policies.explain.explanation",
    ],
)
def test_a_worker_and_a_short_command_import_no_server(module: str) -> None:
    assert loaded(f"import {module}", SERVERS) == []


def test_who_reads_the_audit_stream_needs_no_policy_engine() -> None:
    unneeded = ("regorus", "sealbus.policies.lint.lint", "sealbus.policies.engines.embedded")
    assert loaded("import sealbus.agents.runtime.open", unneeded) == []


def test_a_token_of_the_development_provider_needs_no_certificates() -> None:
    assert (
        loaded("import sealbus.agents.dev.idp.access", ("sealbus.agents.dev.workload_api", "starlette", "authlib"))
        == []
    )
