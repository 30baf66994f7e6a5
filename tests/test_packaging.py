"""The wheel holds what it must, the links equal its mapping, and a package that owns a top-level `agents` is left alone."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import dependency_groups
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sealbus

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("agents", "bus", "envelopes", "policies")


def run(*command: str, cwd: Path) -> str:
    finished = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from the sdist, without any network."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_links_equal_the_mapping_of_the_wheel() -> None:
    sources = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    links = {link.name: link.readlink() for link in (ROOT / "src" / "sealbus").iterdir() if link.is_symlink()}
    assert links == {name: Path("../..") / name for name in FOLDERS}
    assert {name: target for name, target in sources.items() if name != "src/sealbus"} == {
        name: f"sealbus/{name}" for name in FOLDERS
    }


def test_every_file_beside_the_links_is_named_for_the_wheel() -> None:
    named = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    files = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "src" / "sealbus").iterdir()
        if not path.is_symlink() and path.name != "__pycache__"
    }
    assert files == {name for name in named if name.startswith("src/")}


@pytest.mark.slow
def test_wheel_from_the_sdist_holds_every_module_and_the_policy(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if (
                path.suffix in {".py", ".rego", ".json", ".js", ".css", ".html", ".svg"}
                and "__pycache__" not in path.parts
            ):
                assert f"sealbus/{path.relative_to(ROOT)}" in inside
    for path in (ROOT / "src" / "sealbus").rglob("*"):
        if path.is_file() and not {"__pycache__", ".ruff_cache"} & set(path.parts):
            assert str(path.relative_to(ROOT / "src")) in inside
    assert not [
        name for name in inside if name.split("/")[0] not in {"sealbus", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    ]


@pytest.mark.slow
def test_wheel_does_not_touch_a_top_level_agents_package(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    other = tmp_path / "other"
    (other / "agents").mkdir(parents=True)
    (other / "agents" / "__init__.py").write_text("OWNER = 'somebody else'\n", encoding="utf-8")
    (other / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "other-agents"\nversion = "1"\n[tool.hatch.build.targets.wheel]\npackages = ["agents"]\n',
        encoding="utf-8",
    )
    run(
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--wheel",
        "--outdir",
        str(tmp_path / "w"),
        str(other),
        cwd=tmp_path,
    )
    (theirs,) = (tmp_path / "w").glob("*.whl")
    run(
        str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(theirs), str(wheel), cwd=tmp_path
    )
    said = run(
        str(python),
        "-c",
        "import agents, sealbus, sealbus.envelopes.errors; print(agents.OWNER, sealbus.envelopes.errors.Code.DENIED)",
        cwd=tmp_path,
    )
    assert said == "somebody else denied\n"


def test_public_names_are_there() -> None:
    assert sorted(sealbus.__all__) == dir(sealbus)
    for name in sealbus.__all__:
        assert getattr(sealbus, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = sealbus.nothing


@pytest.mark.parametrize(
    ("asked", "lock"),
    [
        (PYPROJECT["project"]["dependencies"], "requirements.txt"),
        (dependency_groups.resolve(PYPROJECT["dependency-groups"], "dev"), "requirements-dev.txt"),
        (dependency_groups.resolve(PYPROJECT["dependency-groups"], "docs"), "requirements-docs.txt"),
    ],
    ids=["dependencies", "dev", "docs"],
)
def test_what_is_asked_for_is_locked(asked: Sequence[str], lock: str) -> None:
    pins = re.findall(r"^([a-z0-9.-]+)==([^ ]+)", (ROOT / lock).read_text(encoding="utf-8"), re.MULTILINE)
    locked = {canonicalize_name(name): version for name, version in pins}
    assert asked
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_what_is_locked_for_use_is_what_is_tested() -> None:
    used, tested, docs = (
        dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.txt", "requirements-dev.txt", "requirements-docs.txt")
    )
    assert used.items() <= tested.items()
    # All are installed in one environment.
    assert {name: docs[name] for name in docs.keys() & tested} == {name: tested[name] for name in docs.keys() & tested}
