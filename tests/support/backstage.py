"""What stands behind a stage that is played in the development environment."""

from __future__ import annotations

from sealbus.agents.dev.demo.backstage import DevBackstage
from sealbus.agents.dev.demo.stage import Stage

__all__ = ["in_development"]


def in_development(stage: Stage) -> DevBackstage:
    """Return the development environment behind `stage`."""
    assert isinstance(stage.backstage, DevBackstage)
    return stage.backstage
