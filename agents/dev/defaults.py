"""Names that the development environment and its commands share; imports nothing."""

from __future__ import annotations

from typing import Final

__all__ = ["DEV_LOCK", "STARTER_AGENTS", "STATE_FOLDER"]

STATE_FOLDER: Final = ".sealbus"
"""The one folder that `sealbus dev` writes to."""

DEV_LOCK: Final = "dev"
"""Name of the lock in it that a running `sealbus dev` holds: what it wrote there is good as long as it does."""

STARTER_AGENTS: Final = ("shop-web", "planner", "inventory", "pricing")
"""The agents that the starter policy knows."""
