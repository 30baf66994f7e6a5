"""Scenes: who does what for whom, and the expected outcome."""

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
    """One scene. `who` acts, for the user `user` if there is one; `expected` is the outcome that it must have.

    It can be played only before an edge that speaks the protocol `door`, if one is named.
    """

    name: str
    who: str
    user: str = ""
    what: str
    expected: Outcome
    play: Play
    door: str = ""
