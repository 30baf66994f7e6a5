"""`sealbus control`: which roles there are; keys in private files, public ones on stdout, no seed anywhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sealbus.agents.cli.run.control import ROLES, command
from sealbus.agents.control.callout.key_files import load_keys


def keygen(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sealbus", "control", "keygen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_public_keys_are_printed_and_seeds_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    done = keygen(str(folder))
    assert done.returncode == 0, done.stderr
    keys = load_keys(issuer=folder / "issuer.seed", xkey=folder / "xkey.seed", user=folder / "user.seed")
    assert dict(line.split("=") for line in done.stdout.splitlines()) == keys.public()
    for seed in folder.glob("*.seed"):
        assert seed.read_text().strip() not in done.stdout + done.stderr


def test_as_json(tmp_path: Path) -> None:
    found = json.loads(keygen(str(tmp_path / "keys"), "--json").stdout)
    assert found.keys() == {"folder", "CALLOUT_ISSUER", "CALLOUT_USER", "CALLOUT_XKEY"}


def test_a_second_time_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keygen(str(folder))
    before = (folder / "issuer.seed").read_bytes()
    done = keygen(str(folder))
    assert done.returncode == 1
    said, advice = done.stderr.splitlines()
    assert "never overwritten" in said
    assert advice.endswith("(sealbus explain configuration)")
    assert (folder / "issuer.seed").read_bytes() == before


def test_an_unknown_role_is_a_mistake_of_usage() -> None:
    result = CliRunner().invoke(command, ["run", "--roles", "callout,conjurer"])
    assert result.exit_code == 2
    assert "'conjurer' is not one of callout, policy, notary" in result.output


@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_named_by_what_opens_it(role: str) -> None:
    module, _, name = ROLES[role].partition(":")
    assert module.startswith(("sealbus.agents.control.", "sealbus.agents.console.", "sealbus.agents.backup."))
    assert name.startswith("open_")


def test_help_names_the_roles() -> None:
    run = command.get_command(click.Context(command), "run")
    assert run is not None
    assert "callout,policy,notary" in CliRunner().invoke(command, ["run", "--help"]).output
