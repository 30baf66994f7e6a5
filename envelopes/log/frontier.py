"""The root of a tree that only grows, from the roots of its complete subtrees: memory is O(log n) (RFC 9162 section 2.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from sealbus.envelopes.errors import Code, LogError

__all__ = ["Frontier", "node_hash", "range_root"]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 9162 section 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


def range_root(nodes: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees that stand side by side, each smaller than the one before; of none, H()."""
    if not nodes:
        return sha256().digest()
    result = nodes[-1]
    for left in reversed(nodes[:-1]):
        result = node_hash(left, result)
    return result


class Frontier:
    """The complete subtrees of a tree of `size` leaves, the largest first: one for each bit of `size` that is set."""

    __slots__ = ("_nodes", "size")

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        """Raise `LogError` (`bad_tile`) unless there are as many nodes of 32 bytes as a tree of `size` leaves has."""
        self._nodes = list(nodes)
        self.size = size
        if size < 0 or len(self._nodes) != size.bit_count() or any(len(node) != 32 for node in self._nodes):
            raise LogError(Code.BAD_TILE, "no frontier of this size")

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """Their roots."""
        return tuple(self._nodes)

    def append(self, leaf: bytes) -> None:
        """Add one leaf, given as its hash."""
        carry = self.size
        while carry & 1:
            leaf = node_hash(self._nodes.pop(), leaf)
            carry >>= 1
        self._nodes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        return range_root(self._nodes)
