"""Names that the development environment and its commands share; imports nothing."""

from __future__ import annotations

from typing import Final

__all__ = ["STARTER_AGENTS", "STATE_FOLDER"]

STATE_FOLDER: Final = ".sealbus"
"""The one folder that `sealbus dev` writes to."""

STARTER_AGENTS: Final = ("shop-web", "planner", "inventory", "pricing")
"""The agents that the starter policy knows."""
