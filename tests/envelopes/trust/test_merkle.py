"""Merkle trees (RFC 9162 section 2.1), against a naive tree and against published roots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import pytest

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.trust.merkle import leaf_hash, path, paths, root, root_of_path, verify_path

# The leaves and roots that certificate-transparency implementations share as test vectors: the roots of the first n.
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@cache
def naive_root(leaves: tuple[bytes, ...]) -> bytes:
    """The definition of section 2.1.1, word for word, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = largest_power_below(len(leaves))
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def naive_path(leaves: tuple[bytes, ...], index: int) -> tuple[bytes, ...]:
    """The definition of section 2.1.3.1, word for word."""
    if len(leaves) == 1:
        return ()
    split = largest_power_below(len(leaves))
    if index < split:
        return (*naive_path(leaves[:split], index), naive_root(leaves[split:]))
    return (*naive_path(leaves[split:], index - split), naive_root(leaves[:split]))


def largest_power_below(size: int) -> int:
    power = 1
    while power * 2 < size:
        power *= 2
    return power


LEAVES = tuple(leaf_hash(number.to_bytes(2, "big")) for number in range(300))


def leaves_of(size: int) -> tuple[bytes, ...]:
    return LEAVES[:size]


def test_published_roots() -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in CT_LEAVES]
    assert [root(leaves[: size + 1]).hex() for size in range(8)] == CT_ROOTS
    assert root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_all_trees_up_to_300_are_the_naive_ones() -> None:
    for size in range(1, 301):
        leaves = leaves_of(size)
        expected = naive_root(leaves)
        top, all_paths = paths(leaves)
        assert top == expected
        assert root(leaves) == expected
        assert len(all_paths) == size
        # Every index for small trees; around each place where a tree changes its shape for larger ones.
        for index in range(size) if size <= 70 else {0, 1, size // 2, largest_power_below(size), size - 2, size - 1}:
            nodes = naive_path(leaves, index)
            assert all_paths[index] == nodes
            assert path(leaves, index) == nodes
            verify_path(leaves[index], size, index, nodes, expected)


def test_every_path_of_every_tree_up_to_300_leads_to_its_root() -> None:
    for size in range(1, 301):
        leaves = leaves_of(size)
        top, all_paths = paths(leaves)
        assert all(root_of_path(leaves[index], size, index, all_paths[index]) == top for index in range(size))


def bad(leaf: bytes, size: int, index: int, nodes: Sequence[bytes], top: bytes) -> str:
    with pytest.raises(EnvelopeError) as caught:
        verify_path(leaf, size, index, nodes, top)
    assert (caught.value.code, caught.value.step) == (Code.BAD_SIGNATURE, 8)
    return caught.value.detail


def test_a_path_has_exactly_its_length() -> None:
    for size in range(1, 40):
        leaves = leaves_of(size)
        top, all_paths = paths(leaves)
        for index in range(size):
            nodes = list(all_paths[index])
            assert bad(leaves[index], size, index, [*nodes, top], top) == "left-over node in the path"
            assert bad(leaves[index], size, index, [*nodes, leaves[0]], top) == "left-over node in the path"
            if nodes:
                assert bad(leaves[index], size, index, nodes[:-1], top) == "missing node in the path"


def test_nothing_in_a_path_can_be_changed() -> None:
    for size in (1, 2, 3, 5, 8, 13):
        leaves = leaves_of(size)
        top, all_paths = paths(leaves)
        for index in range(size):
            nodes = list(all_paths[index])
            assert bad(leaf_hash(b"other"), size, index, nodes, top) == "path leads to another root"
            assert bad(leaves[index], size, index, nodes, leaf_hash(b"other")) == "path leads to another root"
            for place in range(len(nodes)):
                changed = [*nodes[:place], leaf_hash(b"other"), *nodes[place + 1 :]]
                assert bad(leaves[index], size, index, changed, top) == "path leads to another root"
            for other in set(range(size)) - {index}:
                bad(leaves[index], size, other, nodes, top)
            if len(nodes) > 1:
                assert bad(leaves[index], size, index, nodes[::-1], top) == "path leads to another root"


def test_an_inner_node_is_no_leaf() -> None:
    leaves = leaves_of(4)
    inner = sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    other = sha256(b"\x01" + leaves[2] + leaves[3]).digest()
    verify_path(inner, 2, 0, [other], root(leaves))  # why leaves are hashed with 0x00, and the size is signed
    assert leaf_hash(leaves[0] + leaves[1]) != inner


@pytest.mark.parametrize(("size", "index"), [(0, 0), (1, 1), (5, 5), (5, 6), (5, -1)])
def test_no_leaf_is_outside_its_tree(size: int, index: int) -> None:
    assert bad(leaf_hash(b""), size, index, [], leaf_hash(b"")) == "leaf outside its tree"
    with pytest.raises(IndexError):
        path(leaves_of(size), index)
