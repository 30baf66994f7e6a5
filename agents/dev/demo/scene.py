"""Scenes: an actor, its attempt, its user, and the expected outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from sealbus.agents.dev.demo.stage import Stage

ALLOW = "allow"
DENY = "deny"
REFUSED = "refused"
CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An outcome: `allow`, `deny`, `refused`, `canceled` or an HTTP status, with its stable code and the policy's reasons."""

    got: str | int
    code: str = ""
    reasons: tuple[str, ...] = ()


Play: TypeAlias = "Callable[[Stage], Awaitable[Outcome]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scene: `actor` makes the `attempt`, for `user` if one is named, and must have the outcome `expected`.

    If `door` names a protocol, the edge must speak it, or the scene is left out.
    """

    name: str
    actor: str
    user: str = ""
    attempt: str
    expected: Outcome
    play: Play
    door: str = ""
