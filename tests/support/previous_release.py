"""The release before this one, built from the commit in `tests/previous_release.txt`, to run beside this one."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

__all__ = ["build_previous_release"]

_ROOT = Path(__file__).parents[2]


def build_previous_release(folder: Path) -> Path:
    """Build the wheel of the previous release in `folder`, and return the folder to put on PYTHONPATH that has it installed.

    It runs with the packages of this environment, which are those that an upgrade brings first.
    """
    commit = (_ROOT / "tests" / "previous_release.txt").read_text().strip()
    archive = subprocess.run(["git", "archive", commit], cwd=_ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder / "tree", filter="data")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), "."]
    subprocess.run(build, cwd=folder / "tree", check=True, capture_output=True)
    [wheel] = (folder / "dist").glob("sealbus-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "installed")]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    return folder / "installed"
