"""All scenes in order, and how they are played."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.agents.dev.demo.assistants import ASSISTANTS
from sealbus.agents.dev.demo.attackers import ATTACKERS
from sealbus.agents.dev.demo.changes import CHANGES
from sealbus.agents.dev.demo.forked_log import FORKED_LOG
from sealbus.agents.dev.demo.payments import PAYMENTS
from sealbus.agents.dev.demo.people import PEOPLE
from sealbus.agents.dev.demo.scene import Outcome, Scene
from sealbus.agents.dev.demo.stage import Stage
from sealbus.envelopes.errors import SealbusError

SCENES: Final[tuple[Scene, ...]] = (*PEOPLE, *ASSISTANTS, *ATTACKERS, *CHANGES, *FORKED_LOG, *PAYMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneResult:
    """The result of one scene."""

    scene: Scene
    got: Outcome

    @property
    def ok(self) -> bool:
        """Return whether the scene ended as expected, including the code and the reasons."""
        return self.got == self.scene.expected


async def play(scenes: Sequence[Scene], stage: Stage) -> AsyncGenerator[SceneResult, None]:
    """Play the scenes in order and yield each result; a scene that breaks is a result and does not end the play.

    Scenes whose door the edge lacks are left out.
    """
    doors = {door for door in {scene.door for scene in scenes} if await stage.door.speaks(door)}
    for scene in scenes:
        if scene.door not in doors:
            continue
        try:
            got = await scene.play(stage)
        except SealbusError as error:
            got = Outcome(got="error", code=str(error.code))
        except TimeoutError:
            got = Outcome(got="error", code="timeout")
        except LookupError:
            # An earlier scene failed, and this scene needs its result.
            got = Outcome(got="error", code="missing")
        yield SceneResult(scene=scene, got=got)
