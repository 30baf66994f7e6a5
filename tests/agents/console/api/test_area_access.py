"""Whether somebody may look: a yes counts for half a minute, for one area or one thing in it, and a no for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from sealbus.agents.console.api.area_access import FOR, KEPT, AreaAccess
from sealbus.agents.console.api.edge_client import EdgeClient, EdgeRefused
from sealbus.agents.console.pages.sessions import Session
from sealbus.agents.login.token_answer import Tokens


class Edge:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.refuses = False

    async def call(self, token: str, verb: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        self.asked.append((token, verb, str(body["area"])))
        if self.refuses:
            raise EdgeRefused(403, {"code": "denied"}, "a" * 32)
        return {"user": "olga", "idp": "https://idp.example"}


def session(name: str = "t") -> Session:
    return Session(Tokens(access_token=name, refresh_token=None, scope="", expires=0))


async def test_a_yes_counts_for_half_a_minute_and_for_one_area_of_one_session() -> None:
    edge, now = Edge(), [0.0]
    access = AreaAccess(cast("EdgeClient", edge), elapsed=lambda: now[0])
    one, other = session("one"), session("other")
    await access.check(one, "live")
    await access.check(one, "live")
    assert edge.asked == [("one", "view", "live")]
    assert one.name == "olga"
    await access.check(one, "tasks")
    await access.check(other, "live")
    assert len(edge.asked) == 3
    now[0] = FOR
    edge.refuses = True
    with pytest.raises(EdgeRefused):
        await access.check(one, "live")
    edge.refuses = False
    await access.check(one, "live")
    assert len(edge.asked) == 5


async def test_one_thing_is_asked_about_by_itself_and_again_after_half_a_minute() -> None:
    """Who looks at it five times a second leaves no more in the evidence than who looks twice a minute."""
    edge, now = Edge(), [0.0]
    access = AreaAccess(cast("EdgeClient", edge), elapsed=lambda: now[0])
    person = session()
    await access.check(person, "decision")
    for _ in range(25):
        await access.check(person, "decision", "a" * 32)
    assert len(edge.asked) == 2
    # What is shown of one says nothing of another.
    await access.check(person, "decision", "b" * 32)
    assert len(edge.asked) == 3
    now[0], edge.refuses = FOR, True
    for _ in range(2):
        with pytest.raises(EdgeRefused):
            await access.check(person, "decision", "a" * 32)
    assert len(edge.asked) == 5


async def test_what_is_remembered_is_bounded() -> None:
    edge = Edge()
    access = AreaAccess(cast("EdgeClient", edge))
    people = [session() for _ in range(KEPT + 1)]
    for person in people:
        await access.check(person, "live")
    edge.asked.clear()
    await access.check(people[-1], "live")
    await access.check(people[0], "live")
    assert len(edge.asked) == 1
