"""The demonstration's scenes for people who log in at other providers than that of `sealbus dev`."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Self

from sealbus.agents.dev.demo.changes import TRIES
from sealbus.agents.dev.demo.door import Door
from sealbus.agents.dev.demo.play import play
from sealbus.agents.dev.demo.scene import Scene
from sealbus.agents.dev.demo.stage import Stage
from sealbus.envelopes.records.decision import DecisionRecord

__all__ = ["LogIns", "idps_of", "surprises"]

_USERS: Final = ("alice", "bob", "carol")
"""Whom the starter policy knows."""


class LogIns:
    """Tokens of people who have logged in at one provider, made by `at` before the scenes begin."""

    def __init__(self, tokens: Mapping[str, str], others: Sequence[str], *, elsewhere: str, brief: str) -> None:
        self._tokens = dict(tokens)
        self._others = list(others)
        self._elsewhere = elsewhere
        self._brief = brief

    @classmethod
    async def at(
        cls,
        log_in: Callable[[str], Awaitable[str]],
        *,
        elsewhere: Callable[[str], Awaitable[str]],
        brief: Callable[[str], Awaitable[str]],
    ) -> Self:
        """Log everybody in. Each function returns a token of a user: for the edge, for somebody else, for a second."""
        return cls(
            {user: await log_in(user) for user in _USERS},
            [await log_in("alice") for _ in range(TRIES)],
            elsewhere=await elsewhere("alice"),
            brief=await brief("alice"),
        )

    def __call__(self, user: str, *, session: str, audience: str, expires_in: int) -> str:
        """Return the token that is asked for; a session is named by the provider, so that another name is another login."""
        if audience:
            return self._elsewhere
        if session:
            return self._others.pop()
        if expires_in > 0:
            return self._tokens[user]
        expires = json.loads(urlsafe_b64decode(self._brief.split(".")[1] + "=="))["exp"]
        time.sleep(max(0.0, expires - time.time()))
        return self._brief


async def surprises(
    stage: Stage, scenes: Sequence[Scene], tokens: LogIns, *, domain: str = ""
) -> list[tuple[str, object]]:
    """Play `scenes` with `tokens`, of users of a partner's `domain` or of ours.

    Return those that end in another way than they must, and how.
    """
    before = stage.door
    async with Door(stage.backstage.resource, tokens, domain=domain) as stage.door:
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
