"""All scenes, in the order in which they are played."""

from __future__ import annotations

from typing import Final

from sealbus.agents.dev.demo.attackers import ATTACKERS
from sealbus.agents.dev.demo.changes import CHANGES
from sealbus.agents.dev.demo.people import PEOPLE
from sealbus.agents.dev.demo.scene import Scene

__all__ = ["SCENES"]

SCENES: Final[tuple[Scene, ...]] = (*PEOPLE, *ATTACKERS, *CHANGES)
