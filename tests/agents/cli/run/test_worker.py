"""`sealbus worker run MODULE:AGENT`: which agent is meant, and one line for what is not one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.run.worker import command, load_agent, load_agents
from sealbus.envelopes.errors import ConfigurationError

AGENT = """
from sealbus import Agent
inventory = Agent("inventory")
other = 7
"""


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "app_of_a_file.py").write_text(AGENT)
    assert load_agent(f"{tmp_path / 'app_of_a_file.py'}:inventory").name == "inventory"


def test_a_module_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app_of_a_module.py").write_text(AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", *__import__("sys").path])
    assert load_agent("app_of_a_module:inventory").name == "inventory"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("app.py", "give MODULE:AGENT"),
        (":agent", "give MODULE:AGENT"),
        ("app.py:", "give MODULE:AGENT"),
        ("/nowhere/app.py:agent", "no such file"),
        ("no_such_module_anywhere:agent", "no_such_module_anywhere"),
        ("APP:missing", "missing is not an Agent"),
        ("APP:other", "other is not an Agent"),
    ],
)
def test_what_is_no_agent_is_named_in_one_line(tmp_path: Path, target: str, says: str) -> None:
    (tmp_path / "app_of_errors.py").write_text(AGENT)
    with pytest.raises(ConfigurationError, match=says) as refused:
        load_agent(target.replace("APP", str(tmp_path / "app_of_errors.py")))
    assert "\n" not in refused.value.detail


def test_a_module_that_lacks_another_says_which(tmp_path: Path) -> None:
    (tmp_path / "app_of_imports.py").write_text("import no_such_library_anywhere\n")
    with pytest.raises(ConfigurationError, match="no_such_library_anywhere"):
        load_agent(f"{tmp_path / 'app_of_imports.py'}:agent")


def test_two_agents_of_one_file_share_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "app_of_two.py"
    file.write_text("from sealbus import Agent\none, two = Agent('one'), Agent('two')\n")
    one, two = load_agents([f"{file}:one", f"{tmp_path}/../{tmp_path.name}/app_of_two.py:two"])
    module = sys.modules["app_of_two"]
    assert (one, two) == (module.one, module.two)


def test_one_process_runs_an_agent_once(tmp_path: Path) -> None:
    file = tmp_path / "app_of_one.py"
    file.write_text("from sealbus import Agent\none, again = Agent('one'), Agent('one')\n")
    for twice in ([f"{file}:one", f"{file}:one"], [f"{file}:one", f"{file}:again"]):
        with pytest.raises(ConfigurationError, match="agent one is there already; --processes runs it several times"):
            load_agents(twice)


def test_two_files_of_one_name_are_not_one_module(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "app_of_a_name.py").write_text(AGENT.replace('"inventory"', f'"{folder}"'))
    with pytest.raises(ConfigurationError, match="process's module app_of_a_name: start a process for each"):
        load_agents([f"{tmp_path / folder / 'app_of_a_name.py'}:inventory" for folder in ("a", "b")])


@pytest.mark.parametrize("options", [["--concurrency", "0"], ["--processes", "0"], ["--processes", "many"], []])
def test_bad_options_are_usage_errors(options: list[str]) -> None:
    arguments = ["run", *options, *(["app.py:agent"] if options else [])]
    assert CliRunner().invoke(command, arguments).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_waits_for_its_spire_agent_says_so_and_can_be_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """As when both are started at boot: it neither ends nor is deaf."""
    (tmp_path / "app.py").write_text(AGENT)
    (tmp_path / "sealbus.toml").write_text(
        'trust_domain = "example.org"\nnats = ["tls://127.0.0.1:1"]\n'
        f'workload_api = "unix://{tmp_path}/agent.sock"\n[policy]\nengine = "sidecar"\nopa = "/run/opa.sock"\n'
    )
    worker = subprocess.Popen(
        [Path(sys.executable).parent / "sealbus", "worker", "run", "app.py:inventory"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    said = _next_line(worker.stderr)
    worker.send_signal(number)
    rest = worker.communicate(timeout=60)[1].splitlines()
    assert "is waited for" in said
    assert "start the SPIRE agent" in said
    assert (worker.returncode, [line for line in rest if not _tells_of_a_busy_machine(line)]) == (0, [])


def _next_line(lines: IO[str]) -> str:
    """Return the next line, without what is said where the machine is busy."""
    return next((line for line in lines if not _tells_of_a_busy_machine(line)), "")


def _tells_of_a_busy_machine(line: str) -> bool:
    return "the event loop is blocked" in line


def test_a_file_finds_what_lies_beside_it_from_wherever_it_is_named(tmp_path: Path) -> None:
    """As `python app.py` does: in a process of its own, whose path is not ours."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "stock_beside.py").write_text("NAME = 'inventory'\n")
    (tmp_path / "app" / "app_beside.py").write_text(
        "from sealbus import Agent\nfrom stock_beside import NAME\ninventory = Agent(NAME)\n"
    )
    load = "import sys; from sealbus.agents.cli.run.worker import load_agent; print(load_agent(sys.argv[1]).name)"
    done = subprocess.run(
        [sys.executable, "-c", load, "app/app_beside.py:inventory"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("inventory", 0), done.stderr
