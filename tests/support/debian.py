"""Programs of the distribution that some tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["require_program"]

_TOOLS = Path(__file__).parents[2] / ".tools"


def require_program(name: str, package: str | None = None) -> Path:
    """Return the program `name` of a `package`, by default the one of its name; without it skip the test.

    In CI the test fails, unless `make tools` has found that the package cannot be had there.
    """
    found = shutil.which(name, path=f"{_TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if found is not None:
        return Path(found)
    missing = f"there is no {name}: `make tools` gets it where there is apt-get"
    noted = _TOOLS / "debian" / "missing"
    if os.environ.get("CI") and not (noted.exists() and (package or name) in noted.read_text().split()):
        pytest.fail(missing)
    pytest.skip(missing)
