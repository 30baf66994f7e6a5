"""`sealbus init`: what it makes, what it refuses to make, and that it leaves nothing half made."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from sealbus.agents.cli.run import init


def run(*arguments: object) -> Result:
    return CliRunner().invoke(init.command, [str(one) for one in arguments])


def test_a_project_has_the_name_that_it_was_given(tmp_path: Path) -> None:
    place = tmp_path / "billing"
    made = run("billing", "--folder", place, "--json")
    assert made.exit_code == 0, made.output
    said = json.loads(made.output)
    files = {str(path.relative_to(place)): path for path in place.rglob("*") if path.is_file()}
    assert (said["folder"], said["files"]) == (str(place), sorted(files))
    assert {
        ".gitignore",
        ".github/workflows/test.yml",
        "Makefile",
        "README.md",
        "billing/agent.py",
        "sealbus.toml",
    } < set(files)
    assert not [name for name in files if "demo" in name]
    text = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    assert not [name for name, content in text.items() if "demo" in content]
    assert 'agent = Agent("billing")' in text["billing/agent.py"]
    assert 'billing = "billing.agent:agent"' in text["sealbus.toml"]
    assert text["requirements.txt"].startswith(("sealbus @ file:", "sealbus=="))
    # Like any folder that one makes: not the private one that a temporary folder is.
    (tmp_path / "other").mkdir()
    assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["billing", "other"]


def test_it_is_made_here_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("billing")
    assert made.exit_code == 0
    assert "cd billing" in made.stderr
    assert (tmp_path / "billing" / "billing" / "agent.py").exists()


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert run("billing", "--folder", tmp_path / "there").exit_code == 0
    assert (tmp_path / "there" / "Makefile").exists()


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    made = run("billing", "--folder", tmp_path)
    assert made.exit_code == 1
    assert "not empty" in made.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Shop",
        "9lives",
        "my-agent",
        "a.b",
        "../up",
        "/etc",
        "class",
        "match",
        "json",
        "web",
        "édition",
        "a" * 32,
        "a\nb",
        "sealbus",
        "tests",
        "policy",
        "operator",
        "[red]x",
        "x\u202ey",
    ],
)
def test_a_name_that_cannot_be_a_module_and_an_agent_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("--", name)
    assert made.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    made = run("billing", "--folder", tmp_path / "file" / "project")
    assert made.exit_code == 1

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    made = run("billing", "--folder", tmp_path / "project")
    assert made.exit_code == 1
    assert "No space left" in made.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, "sealbus==1.2"),
        (
            {"url": "file:///w/sealbus-1.2-py3-none-any.whl", "archive_info": {}},
            "sealbus @ file:///w/sealbus-1.2-py3-none-any.whl",
        ),
        (
            {"url": "https://forge.example/sealbus", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "sealbus @ git+https://forge.example/sealbus@c0ffee",
        ),
    ],
)
def test_a_project_asks_for_the_sealbus_that_made_it(
    origin: dict[str, object] | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(origin) if origin is not None else None
    installed = SimpleNamespace(version="1.2", read_text=lambda _: text)
    monkeypatch.setattr("importlib.metadata.distribution", lambda _: installed)
    assert run("billing", "--folder", tmp_path).exit_code == 0
    assert (tmp_path / "requirements.txt").read_text().splitlines()[0] == line
