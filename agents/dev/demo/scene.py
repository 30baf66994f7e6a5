"""What a scene is: who does what for whom, what must come of it, and how it went."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sealbus.envelopes.errors import SealbusError

if TYPE_CHECKING:
    from sealbus.agents.dev.demo.stage import Stage

__all__ = ["ALLOW", "DENY", "REFUSED", "Outcome", "Play", "Result", "Scene", "play"]

ALLOW = "allow"
DENY = "deny"
REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of something: `allow`, `deny`, `refused` or an HTTP status, with its stable code and the policy's reasons."""

    got: str | int
    code: str = ""
    reasons: tuple[str, ...] = ()


Play: TypeAlias = "Callable[[Stage], Awaitable[Outcome]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scene. `who` acts, for the user `user` where there is one; `expected` is what must come of it."""

    name: str
    who: str
    user: str = ""
    what: str
    expected: Outcome
    play: Play


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one scene went."""

    scene: Scene
    got: Outcome

    @property
    def ok(self) -> bool:
        """Tell whether it went as it must, to the code and the reasons."""
        return self.got == self.scene.expected


async def play(scenes: Sequence[Scene], stage: Stage) -> AsyncGenerator[Result, None]:
    """Play the scenes in order and yield how each went; a scene that breaks is a result, not the end."""
    for scene in scenes:
        try:
            got = await scene.play(stage)
        except SealbusError as error:
            got = Outcome(got="error", code=str(error.code))
        except TimeoutError:
            got = Outcome(got="error", code="timeout")
        except LookupError:
            # What an earlier scene should have left behind is not there.
            got = Outcome(got="error", code="missing")
        yield Result(scene=scene, got=got)
