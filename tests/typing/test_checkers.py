"""The package `invoicing` beside this file, as its user has it, is judged alike by mypy and by pyright, both strict.

Every type that its lines claim is held by `assert_type`, and every mistake in it by a comment that is an error itself once
the checker sees no mistake there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.howto import files_of

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PYRIGHT = ROOT / ".tools" / "pyright" / "node_modules" / "pyright" / "index.js"


README_NAMES = """\
from app import STOCK, Update, agent, item
from sealbus import Context
from sealbus.testing import TestBus
"""
"""What README's pieces of code take for granted, as `docs/tour/app.py` has it."""


def require_pyright() -> tuple[str, Path]:
    """Return node and pyright's program; without them skip the test, or fail it in CI."""
    node = shutil.which("node")
    if node is not None and PYRIGHT.exists():
        return node, PYRIGHT
    missing = f"there is no {'node' if node is None else 'pyright'}: `make tools` installs pyright"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy outside of the repository: what it imports is the installed package, by its `py.typed`."""
    shutil.copytree(HERE / "invoicing", tmp_path / "invoicing", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "pyrightconfig.json", tmp_path)
    return tmp_path


def said(command: list[str | Path], folder: Path) -> tuple[int, list[str]]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, [
        line for line in (done.stdout + done.stderr).splitlines() if "error:" in line or " - error" in line
    ]


def mypy(folder: Path, *files: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    return said([*command, *(files or ("invoicing",))], folder)


def pyright(folder: Path) -> tuple[int, list[str]]:
    node, program = require_pyright()
    return said([node, program, "--pythonpath", sys.executable], folder)


@pytest.mark.parametrize("checker", [mypy, pytest.param(pyright, marks=pytest.mark.pyright)])
def test_what_is_claimed_holds_and_what_is_wrong_is_an_error(
    checker: Callable[[Path], tuple[int, list[str]]], project: Path
) -> None:
    assert checker(project) == (0, [])
    # And without its comments, each mistake is told of: the checker has read the file, and the public types.
    mistakes = project / "invoicing" / "mistakes.py"
    lines = mistakes.read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# type: ignore" in line and "# pyright: ignore" in line}
    mistakes.write_text("\n".join(line.partition("  # type: ignore")[0] for line in lines) + "\n", encoding="utf-8")
    status, errors = checker(project)
    assert status == 1
    assert {int(found[1]) for line in errors if (found := re.search(r"mistakes\.py:(\d+):", line))} == wrong
    assert len(wrong) > 20


def test_the_code_of_readme_and_guide_is_typed(tmp_path: Path) -> None:
    readme, guide = (
        re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for name in ("README.md", "docs/guide.md")
    )
    handler, test = readme
    shutil.copy(ROOT / "docs" / "tour" / "app.py", tmp_path)
    files = {
        "readme.py": f"{README_NAMES}\n{handler}\nasync def test() -> None:\n{textwrap.indent(test, '    ')}",
        **dict(zip(("notes.py", "test_notes.py", "publish.py"), guide, strict=True)),
    }
    for name, code in files.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    assert mypy(tmp_path, *files) == (0, [])


def test_the_code_of_how_to_pages_is_typed(tmp_path: Path) -> None:
    pages = (path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    files = [(name, code) for page in pages for name, code in files_of(page).items() if name.endswith(".py")]
    for name, code in files:
        (tmp_path / name).write_text(code, encoding="utf-8")
    names = [name for name, _ in files]
    assert len(set(names)) == len(names) > 8
    assert mypy(tmp_path, *names) == (0, [])
