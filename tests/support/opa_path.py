"""Where the real OPA of the tests is: `make tools` builds it; elsewhere than in CI a test without it is skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["opa_executable"]

_BUILT = Path(__file__).parents[2] / ".tools" / "bin" / "opa"


def opa_executable() -> Path:
    """Return the OPA executable; skip the calling test, or fail it in CI, where there is none."""
    found = str(_BUILT) if _BUILT.exists() else shutil.which("opa")
    if found is not None:
        return Path(found)
    if os.environ.get("CI"):
        pytest.fail("no opa: run `make tools`")
    pytest.skip("no opa: run `make tools`")
