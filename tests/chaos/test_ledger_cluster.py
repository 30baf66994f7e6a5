"""The ledger of three servers, of a leaf node before them, and of two regions, shortened: each of their faults once."""

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
        (Layout.REGIONS, ["link", "region", "home", "leader"]),
    ],
)
async def test_no_promise_is_broken_with_three_servers_a_leaf_node_and_two_regions(
    layout: Layout, kinds: list[str]
) -> None:
    count = await counted(kinds, kills=len(kinds), layout=layout)
    assert count.problems == []
    assert count.effects >= count.acknowledged * 8 // 10
