"""The ledger of three servers, and of a leaf node before them, shortened: each kind of fault of theirs once."""

from __future__ import annotations

import pytest
from ledger.servers import Layout
from ledger.short import counted

pytestmark = [pytest.mark.nats]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "kinds"),
    [
        (Layout.CLUSTER, ["leader", "one", "both", "network", "restore", "power"]),
        (Layout.LEAF, ["leader", "link", "leaf", "nats"]),
    ],
)
async def test_no_promise_is_broken_with_three_servers_and_a_leaf_node(layout: Layout, kinds: list[str]) -> None:
    count = await counted(kinds, kills=len(kinds), layout=layout)
    assert count.problems == []
    assert count.effects >= count.acknowledged * 8 // 10
