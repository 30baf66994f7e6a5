"""The parent of `sealbus worker run --processes` and `--reload`: what it starts, and what it refuses before it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.run import processes
from sealbus.agents.cli.run.processes import folders_of, run_processes, run_project
from sealbus.agents.cli.run.worker import command
from sealbus.envelopes.errors import ConfigurationError

SETTINGS = """trust_domain = "example.org"
nats = ["tls://127.0.0.1:1"]
[policy]
engine = "sidecar"
opa = "/run/opa.sock"
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "sealbus.toml").write_text(SETTINGS)
    return str(tmp_path / "sealbus.toml")


class Started:
    """Stands for the supervisor: keeps what it was to start."""

    command: Callable[[int, int, int], Sequence[str]]
    processes = 0

    def __init__(self, command: Callable[[int, int, int], Sequence[str]], *, processes: int, **_: object) -> None:
        Started.command, Started.processes = staticmethod(command), processes

    async def run_processes(self, stop: object) -> int:
        del stop
        return 5

    async def run_reloading(self, stop: object, changed: object) -> int:
        del stop, changed
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> type[Started]:
    monkeypatch.setattr(processes, "Supervisor", Started)
    monkeypatch.setattr(Started, "processes", 0)
    return Started


def test_each_process_is_the_same_command_with_its_own_number_and_ports(started: type[Started], config: str) -> None:
    arguments = ["run", "a.py:one", "b.py:two", "--processes", "3", "--health", "[::1]:9000", "--concurrency", "7"]
    done = CliRunner().invoke(command, [*arguments, "--config", config, "--json"])
    assert (done.exit_code, started.processes) == (5, 3)
    own = [sys.executable, "-P", "-m", "sealbus", "worker", "run", "--supervised"]
    given = ["--concurrency", "7", "--health", "[::1]:9001", "--config", config, "--json", "--", "a.py:one", "b.py:two"]
    assert started.command(2, 11, 12) == [*own, "2", "11", "12", *given]


def test_what_is_not_said_is_not_passed_on(started: type[Started], config: str) -> None:
    run_processes(
        ["a.py:one"],
        processes=1,
        reloading=False,
        concurrency=None,
        health=None,
        config=config,
        as_json=False,
        log_json=False,
    )
    assert started.command(1, 9, 10)[-7:] == ["1", "9", "10", "--config", config, "--", "a.py:one"]


async def test_each_agent_of_a_project_has_a_process_of_its_interpreter(
    started: type[Started], config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    agents = ["shop.orders:agent", "shop.stock:agent"]
    await run_project(agents, python="/project/.venv/bin/python", config=Path(config), stop=asyncio.Event())
    assert started.processes == 2
    own = ["/project/.venv/bin/python", "-P", "-m", "sealbus", "worker", "run", "--supervised"]
    assert started.command(2, 9, 10) == [*own, "2", "9", "10", "--config", config, "--", "shop.stock:agent"]


def test_ports_are_counted_before_anything_is_started(started: type[Started], config: str) -> None:
    with pytest.raises(ConfigurationError, match="no port 1 after it"):
        run_processes(
            ["a.py:one", "a.py:two"],
            processes=2,
            reloading=False,
            concurrency=None,
            health="65535",
            config=config,
            as_json=False,
            log_json=False,
        )
    assert started.processes == 0


def test_a_spool_is_of_one_process(started: type[Started], tmp_path: Path) -> None:
    (tmp_path / "sealbus.toml").write_text(SETTINGS + '[audit]\nspool = "/var/spool/sealbus"\n')
    with pytest.raises(ConfigurationError, match=r"audit\.spool"):
        run_processes(
            ["a.py:one"],
            processes=2,
            reloading=False,
            concurrency=None,
            health=None,
            config=str(tmp_path / "sealbus.toml"),
            as_json=False,
            log_json=False,
        )


def test_the_folders_of_agents_are_those_of_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop" / "agents").mkdir(parents=True)
    assert folders_of(["apps/a.py:one", "/srv/b.py:two", "shop.agents.stock:three", "flat:four"]) == [
        tmp_path / "apps",
        Path("/srv"),
        tmp_path / "shop",
        tmp_path,
    ]
