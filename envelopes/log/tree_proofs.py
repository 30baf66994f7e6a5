"""Inclusion and consistency proofs of large trees: made from subtree roots, and verified (RFC 9162 sections 2.1.3, 2.1.4).

A proof is made from the roots of complete subtrees, which tiles store. The root of a growing tree needs only these as well,
in memory of O(log n) (section 2.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TypeAlias

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.trust.merkle import verify_path

NodeOf: TypeAlias = Callable[[int, int], bytes]
"""Returns the root of the complete subtree number `index` of height `level`, which starts at leaf `index * 2**level`."""


def subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield level and index of the complete subtrees over leaves `start` to `end`, largest first.

    `start` must be a multiple of the least power of two that is at least `end - start`, as in the splits of RFC 9162.
    """
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def inclusion_path(index: int, size: int, node_of: NodeOf) -> tuple[bytes, ...]:
    """Return the inclusion path of leaf `index` in the tree of the first `size` leaves, from the leaf upwards.

    Raises `LogError` (`bad_proof`) if there is no such leaf, and the errors of `node_of`.
    """
    if not 0 <= index < size:
        raise LogError(Code.BAD_PROOF, "no such entry")
    low, high, path = 0, size, list[bytes]()
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_root(middle, high, node_of))
            high = middle
        else:
            path.append(_root(low, middle, node_of))
            low = middle
    return tuple(reversed(path))


def consistency_path(old: int, new: int, node_of: NodeOf) -> tuple[bytes, ...]:
    """Return the proof that the tree of `new` leaves begins with that of `old`; empty if `old` is 0 or `new`.

    Raises `LogError` (`bad_proof`) unless `0 <= old <= new`, and the errors of `node_of`.
    """
    if not 0 <= old <= new:
        raise LogError(Code.BAD_PROOF, "no such sizes")
    if old == 0:
        return ()
    low, high, path = 0, new, list[bytes]()
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_root(middle, high, node_of))
            high = middle
        else:
            path.append(_root(low, middle, node_of))
            low = middle
    if low:
        # The rest is a subtree of both trees. If `low` is 0, it is the old tree itself, which verifiers know.
        path.append(_root(low, high, node_of))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raise `LogError` (`bad_proof`) unless `leaf` is number `index` of the tree of `size` with this root.

    RFC 9162 section 2.1.3.2; a missing, left-over or malformed node fails.
    """
    _check_nodes(path)
    try:
        verify_path(leaf, size, index, path, root)
    except EnvelopeError as error:
        raise LogError(Code.BAD_PROOF, f"inclusion: {error.detail}") from error


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Raise `LogError` unless the tree of `new` leaves begins with that of `old` (RFC 9162 section 2.1.4.2).

    `inconsistent_log`: fewer leaves than before, or as many with another root. `bad_proof`: the path does not prove
    consistency, perhaps by the fault of its maker.
    """
    if new < old:
        raise LogError(Code.INCONSISTENT_LOG, "smaller than before")
    if new == old and new_root != old_root:
        raise LogError(Code.INCONSISTENT_LOG, "two roots of one size")
    if old == new or old == 0:
        if path:
            raise LogError(Code.BAD_PROOF, "consistency: left-over node")
        return
    _check_nodes(path)
    # A complete old tree is itself the first node, and the path does not repeat it.
    nodes = [old_root, *path] if old & (old - 1) == 0 else [*path]
    if not path:
        raise LogError(Code.BAD_PROOF, "consistency: missing node")
    first, last = old - 1, new - 1
    while first & 1:
        first >>= 1
        last >>= 1
    before = after = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            raise LogError(Code.BAD_PROOF, "consistency: left-over node")
        if first & 1 or first == last:
            before, after = node_hash(node, before), node_hash(node, after)
            # An even `first` equals `last` here and is not 0, so the loop ends at their lowest set bit.
            while not first & 1:
                first >>= 1
                last >>= 1
        else:
            after = node_hash(after, node)
        first >>= 1
        last >>= 1
    if last != 0:
        raise LogError(Code.BAD_PROOF, "consistency: missing node")
    if before != old_root or after != new_root:
        raise LogError(Code.BAD_PROOF, "consistency: does not lead to both roots")


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _root(start: int, end: int, node_of: NodeOf) -> bytes:
    return range_root([node_of(level, index) for level, index in subtrees(start, end)])


def _check_nodes(path: Sequence[bytes]) -> None:
    if any(len(node) != 32 for node in path):
        raise LogError(Code.BAD_PROOF, "a node is 32 bytes")


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 9162 section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def range_root(nodes: Sequence[bytes]) -> bytes:
    """Return the root over adjacent complete subtrees, in descending size; H() for none."""
    if not nodes:
        return sha256().digest()
    result = nodes[-1]
    for left in reversed(nodes[:-1]):
        result = node_hash(left, result)
    return result


class Frontier:
    """The complete subtrees of a tree of `size` leaves, largest first: a subtree for each set bit of `size`."""

    __slots__ = ("_nodes", "size")

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        """Make the frontier; raise `LogError` (`bad_tile`) unless `nodes` are 32 bytes each, and as many as `size` needs."""
        self._nodes = list(nodes)
        self.size = size
        if size < 0 or len(self._nodes) != size.bit_count() or any(len(node) != 32 for node in self._nodes):
            raise LogError(Code.BAD_TILE, "no frontier of this size")

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The roots of the subtrees."""
        return tuple(self._nodes)

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf."""
        carry = self.size
        while carry & 1:
            leaf = node_hash(self._nodes.pop(), leaf)
            carry >>= 1
        self._nodes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        return range_root(self._nodes)
