"""Merkle trees of RFC 9162 section 2.1: roots, inclusion paths, and their check.

Used for batches of messages (SPEC.md section 4), for the items of an audit message (section 8) and for the audit log
(section 13). Leaves are passed as hashes; `leaf_hash` returns the hash of a leaf's bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256

from sealbus.envelopes.errors import Code, EnvelopeError


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf, H(0x00 || data) (RFC 9162 section 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def _levels(leaves: Sequence[bytes]) -> list[Sequence[bytes]]:
    """Return the tree from its leaves up to its root.

    Pairing neighbours and promoting an odd last node gives the tree of the RFC, which splits at the largest power of
    two below n: every left subtree is complete, and only the right edge is ragged.
    """
    levels = [leaves]
    while len(leaves) > 1:
        above = [sha256(b"\x01" + leaves[left] + leaves[left + 1]).digest() for left in range(0, len(leaves) - 1, 2)]
        if len(leaves) % 2:
            above.append(leaves[-1])
        levels.append(above)
        leaves = above
    return levels


def _siblings(levels: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    nodes = []
    for level in levels[:-1]:
        sibling = index ^ 1
        if sibling < len(level):
            nodes.append(level[sibling])
        index >>= 1
    return tuple(nodes)


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash of `leaves` (RFC 9162 section 2.1.1): H() without leaves, the leaf itself for one."""
    return _levels(leaves)[-1][0] if leaves else sha256().digest()


def path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the inclusion path of leaf `index`, from the leaf upwards (RFC 9162 section 2.1.3.1).

    Raises `IndexError` if there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError("no such leaf")
    return _siblings(_levels(leaves), index)


def paths(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """Return the root of at least one leaf and the inclusion path of each, every node hashed once."""
    levels = _levels(leaves)
    # From the root down: the path of a node is its sibling, where it has one, and then the path of its parent.
    below: list[tuple[bytes, ...]] = [()]
    for level in levels[-2::-1]:
        above, below = below, []
        for parent, left in enumerate(range(0, len(level) - 1, 2)):
            below += (level[left + 1], *above[parent]), (level[left], *above[parent])
        if len(level) % 2:
            below.append(above[-1])
    return levels[-1][0], below


def root_of_path(leaf: bytes, size: int, index: int, nodes: Sequence[bytes]) -> bytes:
    """Return the root that `nodes` leads to from `leaf` in a tree of `size` (RFC 9162 section 2.1.3.2, steps 1 to 4).

    Raises `EnvelopeError` (`bad_signature`, step 8) unless the path has exactly the length that `size` and `index` demand.
    The root is not verified: the caller compares it, or checks a signature over it.
    """
    if not 0 <= index < size:
        raise EnvelopeError(Code.BAD_SIGNATURE, 8, "leaf outside its tree")
    sides = sides_of(size, index)
    if len(nodes) > len(sides):
        raise EnvelopeError(Code.BAD_SIGNATURE, 8, "left-over node in the path")
    if len(nodes) < len(sides):
        raise EnvelopeError(Code.BAD_SIGNATURE, 8, "missing node in the path")
    return root_of_sides(leaf, zip(sides, nodes, strict=True))


def root_of_sides(leaf: bytes, nodes: Iterable[tuple[bool, bytes]]) -> bytes:
    """Return the root that `nodes` lead to from `leaf`; each node comes with whether it is on the left.

    The sides identify the place of the leaf, in a tree of any size. No number need be trusted.
    """
    result = leaf
    for left, node in nodes:
        result = _parent(node, result) if left else _parent(result, node)
    return result


@lru_cache(maxsize=4096)
def _parent(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node, H(0x01 || left || right) (RFC 9162 section 2.1.1).

    Cached, because the messages of one batch share most nodes of their paths.
    """
    return sha256(b"\x01" + left + right).digest()


@lru_cache(maxsize=8192)
def sides_of(size: int, index: int) -> tuple[bool, ...]:
    """Return for each node of the path of leaf `index`, from the leaf upwards, whether it is on the left.

    RFC 9162 section 2.1.3.2 without its hashes. Cached, because it depends only on the two numbers.
    """
    first, last, sides = index, size - 1, []
    while last:
        left = bool(first & 1) or first == last
        sides.append(left)
        # With a node on the left, an even `first` equals `last`. Neither is 0, so the loop ends at their lowest set bit.
        while left and not first & 1:
            first >>= 1
            last >>= 1
        first >>= 1
        last >>= 1
    return tuple(sides)


def verify_path(leaf: bytes, size: int, index: int, nodes: Sequence[bytes], root: bytes) -> None:
    """Raise `EnvelopeError` (`bad_signature`, step 8) unless `leaf` is number `index` of the tree with this root."""
    if root_of_path(leaf, size, index, nodes) != root:
        raise EnvelopeError(Code.BAD_SIGNATURE, 8, "path leads to another root")
