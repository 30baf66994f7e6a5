"""The root of a growing tree, against trees that are made whole."""

from __future__ import annotations

import pytest

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.tree_proofs import Frontier, node_hash, range_root
from sealbus.envelopes.trust.merkle import leaf_hash, root

LEAVES = [leaf_hash(number.to_bytes(2, "big")) for number in range(300)]

# The leaves and roots that certificate-transparency implementations share as test vectors: the roots of the first n.
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_published_roots() -> None:
    frontier, found = Frontier(), [Frontier().root().hex()]
    for leaf in CT_LEAVES:
        frontier.append(leaf_hash(bytes.fromhex(leaf)))
        found.append(frontier.root().hex())
    assert found == CT_ROOTS


def test_the_root_is_that_of_the_whole_tree_at_every_size() -> None:
    frontier = Frontier()
    for size in range(301):
        assert frontier.size == size
        assert frontier.root() == root(LEAVES[:size])
        assert len(frontier.nodes) == size.bit_count()
        again = Frontier(size, frontier.nodes)
        assert again.root() == frontier.root()
        if size < 300:
            frontier.append(LEAVES[size])


def test_subtrees_side_by_side() -> None:
    first = node_hash(LEAVES[0], LEAVES[1])
    assert range_root([first, LEAVES[2]]) == root(LEAVES[:3])
    assert range_root([LEAVES[0]]) == LEAVES[0]
    assert range_root([]) == root([])


@pytest.mark.parametrize(
    ("size", "nodes"),
    [
        (-1, []),
        (-1, LEAVES[:1]),
        (1, []),
        (2, LEAVES[:2]),
        (0, LEAVES[:1]),
        (1, [b"short"]),
        (3, [b"short", LEAVES[0]]),
        (3, [LEAVES[0], b"short"]),
    ],
)
def test_a_frontier_has_as_many_nodes_as_its_size(size: int, nodes: list[bytes]) -> None:
    with pytest.raises(LogError) as caught:
        Frontier(size, nodes)
    assert caught.value.code is Code.BAD_TILE
