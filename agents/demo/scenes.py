"""All scenes, in the order in which they are played."""

from __future__ import annotations

from typing import Final

from sealbus.agents.demo.attackers import ATTACKERS
from sealbus.agents.demo.changes import CHANGES
from sealbus.agents.demo.people import PEOPLE
from sealbus.agents.demo.scene import Scene

__all__ = ["SCENES"]

SCENES: Final[tuple[Scene, ...]] = (*PEOPLE, *ATTACKERS, *CHANGES)
