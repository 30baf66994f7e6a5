"""The chart, and the program that renders it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stack.tools import find_tool

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["CHART", "require_helm"]

CHART = Path(__file__).parents[2] / "deploy" / "kubernetes" / "sealbus"


def require_helm() -> str:
    """Return the program; without it skip the test, or fail it in CI."""
    try:
        return str(find_tool("helm"))
    except ConfigurationError as error:
        if os.environ.get("CI"):
            pytest.fail(error.detail)
        pytest.skip(error.detail)
