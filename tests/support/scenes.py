"""The demonstration's scenes for people who log in at other providers than that of `sealbus dev`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sealbus.agents.dev.demo.door import Door
from sealbus.agents.dev.demo.play import SCENES, play
from sealbus.agents.dev.demo.scene import Scene
from sealbus.agents.dev.demo.stage import Stage
from sealbus.envelopes.records.decision import DecisionRecord

__all__ = ["ELSEWHERE", "LEFT_OUT", "USERS", "LogIns", "idps_of", "surprises"]

USERS: Final = ("alice", "bob", "carol")
"""Whom the starter policy knows."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "an expired token": "a provider issues none, and waiting for one to expire would take its whole life",
    "a session is revoked mid-chain": "the scene names its sessions, and a provider names them itself",
}
"""Scenes that need what only the development IdP can do, with the reason."""

ELSEWHERE: Final[tuple[Scene, ...]] = tuple(scene for scene in SCENES if scene.name not in LEFT_OUT)


class LogIns:
    """What came of log-ins: a token of each user for the edge, and one of alice for somebody else."""

    def __init__(self, tokens: Mapping[str, str], *, elsewhere: str) -> None:
        self._tokens = dict(tokens)
        self._elsewhere = elsewhere

    def __call__(self, user: str, *, session: str, audience: str, expires_in: int) -> str:
        """Return the token; sessions and times are the provider's."""
        assert (session, expires_in > 0) == ("", True), "the scene is to be left out"
        return self._elsewhere if audience else self._tokens[user]


async def surprises(stage: Stage, scenes: Sequence[Scene], tokens: LogIns) -> list[tuple[str, object]]:
    """Play `scenes` with `tokens` and return those that end in another way than they must, and how."""
    before = stage.door
    async with Door(stage.backstage.resource, tokens) as stage.door:
        try:
            return [(one.scene.name, one.got) async for one in play(scenes, stage) if not one.ok]
        finally:
            stage.door = before


def idps_of(stage: Stage) -> set[str]:
    """Return the providers of the users for whom something was decided."""
    found = set()
    for entry in stage.entries:
        user = entry.input.get("context", {}) if isinstance(entry.record, DecisionRecord) else {}
        said = user.get("user") if isinstance(user, dict) else None
        if isinstance(said, dict) and said["present"]:
            found.add(str(said["idp"]))
    return found
