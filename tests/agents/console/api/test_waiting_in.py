"""What a console lists of what waits: every page of every queue, up to a bound, and of each task what a list shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from sealbus.agents.console.api.edge_client import EdgeClient
from sealbus.agents.console.api.routes import waiting_in


class Edge:
    """An edge with queues of so many tasks, two on a page."""

    def __init__(self, **queues: int) -> None:
        self.queues = queues
        self.asked_for: list[tuple[str, int]] = []
        self.endless = False

    async def asked(self, token: str, method: str, path: str, *, query: Mapping[str, str]) -> Mapping[str, Any]:
        assert (token, method, path) == ("t", "GET", "/v1/approvals")
        queue, after = query["queue"], int(query["after"])
        self.asked_for.append((queue, after))
        if self.endless:
            return {"approvals": [], "after": 1}
        rest = range(after, self.queues[queue])
        tasks = [{"id": f"{queue}-{one}", "queue": queue, "body": "x" * 1_000} for one in rest[:2]]
        return {"approvals": tasks} | ({"after": after + 2} if len(rest) > 2 else {})


async def listed(edge: Edge, most: int = 100) -> tuple[list[object], bool]:
    found, more = await waiting_in(cast("EdgeClient", edge), "t", list(edge.queues), most=most)
    assert all(one.keys() == {"id", "queue"} for one in found)
    return [one["id"] for one in found], more


async def test_every_page_of_every_queue_is_listed() -> None:
    edge = Edge(a=5, b=0, c=2)
    assert await listed(edge) == (["a-0", "a-1", "a-2", "a-3", "a-4", "c-0", "c-1"], False)
    assert edge.asked_for == [("a", 0), ("a", 2), ("a", 4), ("b", 0), ("c", 0)]


@pytest.mark.parametrize(("most", "many", "more"), [(1, 2, True), (4, 4, True), (6, 7, False), (7, 7, False)])
async def test_a_list_is_bounded_and_says_so(most: int, many: int, more: bool) -> None:
    found, rest = await listed(Edge(a=5, c=2), most)
    assert (len(found), rest) == (many, more)


async def test_an_edge_that_goes_on_for_ever_is_left() -> None:
    edge = Edge(a=0)
    edge.endless = True
    assert await listed(edge) == ([], True)
    assert len(edge.asked_for) == 100
