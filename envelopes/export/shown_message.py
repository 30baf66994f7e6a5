"""One audit message in a receipt: its header with what vouches for it, and those of its items that are to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from sealbus.envelopes.errors import Code, EnvelopeError, LogError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.lines import base64_text, parse_base64, parse_number
from sealbus.envelopes.merkle import leaf_hash, path, root_of_sides, sides_of
from sealbus.envelopes.record_fields import check_proof
from sealbus.envelopes.wire import Credential, Proof

__all__ = ["ShownItem", "ShownMessage", "show_items"]

_HASH_BYTES: Final = 32
_LEFT: Final = "left"
_RIGHT: Final = "right"


@dataclass(frozen=True, slots=True)
class ShownItem:
    """An item of an audit body, and its path to `dig`: each node, and whether it stands on the left.

    How many items there are, and the item's number, are not said: nothing in a receipt covers them.
    """

    data: bytes = field(repr=False)
    path: tuple[tuple[bool, bytes], ...]

    @property
    def place(self) -> tuple[bool, ...]:
        """The way from the root to it, each time whether it goes right: places compare as items stand in the body."""
        return tuple(left for left, _ in reversed(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMessage:
    """An audit message as far as a receipt shows it; nothing is verified. `index` is the number of its entry in the log."""

    index: int
    sequence: int
    stored: int
    header: bytes = field(repr=False)
    proof: Proof = field(repr=False)
    credential: Credential
    items: tuple[ShownItem, ...]
    """In their order: evidence, then the record, which is the last; or bundles."""

    def check_items(self, dig: bytes) -> None:
        """Raise `EnvelopeError` (`bad_signature`) unless every item is what `dig` is over, where it says."""
        if any(root_of_sides(leaf_hash(item.data), item.path) != dig for item in self.items):
            raise EnvelopeError(Code.BAD_SIGNATURE, 8, "path leads to another root")

    def lines(self) -> list[str]:
        """Return the lines of a receipt that say all this."""
        size, index, nodes, signature = self.proof
        return [
            f"entry {self.index} {self.sequence} {self.stored}",
            f"header {base64_text(self.header)}",
            _line(f"proof {size} {index} {base64_text(signature)}", nodes),
            f"credential {self.credential.kind} {base64_text(self.credential.token)}",
            *(" ".join([f"item {base64_text(item.data)}", *map(_side_text, item.path)]) for item in self.items),
        ]

    @classmethod
    def parse(cls, lines: Sequence[str]) -> ShownMessage:
        """Return what `lines` say; raise `LogError` (`bad_note`) for lines of another form."""
        if len(lines) < 5:
            raise LogError(Code.BAD_NOTE, "receipt: lines are missing")
        entry, header, proof, credential = (
            _words(lines[0], "entry", 3, 3),
            _words(lines[1], "header", 1, 1),
            _words(lines[2], "proof", 3, 3 + DEFAULT_LIMITS.proof_nodes),
            _words(lines[3], "credential", 2, 2),
        )
        shown = cls(
            index=parse_number(entry[0], "entry"),
            sequence=parse_number(entry[1], "entry"),
            stored=parse_number(entry[2], "entry"),
            header=parse_base64(header[0], "header"),
            proof=Proof(
                parse_number(proof[0], "proof"),
                parse_number(proof[1], "proof"),
                _nodes(proof[3:]),
                parse_base64(proof[2], "proof"),
            ),
            credential=Credential(parse_number(credential[0], "credential"), parse_base64(credential[1], "credential")),
            items=tuple(_item(line) for line in lines[4:]),
        )
        if any(one.place >= other.place for one, other in pairwise(shown.items)):
            raise LogError(Code.BAD_NOTE, "receipt: items in another order than in the body")
        try:
            check_proof("proof", shown.proof)
        except SealError as error:
            raise LogError(Code.BAD_NOTE, f"receipt: {error.detail}") from error
        return shown


def show_items(items: Sequence[bytes], shown: Iterable[int]) -> tuple[ShownItem, ...]:
    """Return those of the items of a body whose numbers are in `shown`, in that order, each with its path."""
    leaves = [leaf_hash(item) for item in items]
    return tuple(
        ShownItem(items[index], tuple(zip(sides_of(len(items), index), path(leaves, index), strict=True)))
        for index in shown
    )


def _item(line: str) -> ShownItem:
    data, *path = _words(line, "item", 1, 1 + DEFAULT_LIMITS.proof_nodes)
    return ShownItem(parse_base64(data, "item"), tuple(map(_side, path)))


def _side(word: str) -> tuple[bool, bytes]:
    side, _, node = word.partition(":")
    if side not in (_LEFT, _RIGHT):
        raise LogError(Code.BAD_NOTE, "receipt: a node stands left or right")
    return side == _LEFT, _nodes([node])[0]


def _side_text(side: tuple[bool, bytes]) -> str:
    left, node = side
    return f"{_LEFT if left else _RIGHT}:{base64_text(node)}"


def _line(head: str, nodes: Iterable[bytes]) -> str:
    return " ".join([head, *map(base64_text, nodes)])


def _words(line: str, name: str, least: int, most: int) -> list[str]:
    first, *words = line.split(" ")
    if first != name or not least <= len(words) <= most:
        raise LogError(Code.BAD_NOTE, f"receipt: {name} is not where it must be")
    return words


def _nodes(words: Iterable[str]) -> tuple[bytes, ...]:
    nodes = tuple(parse_base64(word, "node") for word in words)
    if any(len(node) != _HASH_BYTES for node in nodes):
        raise LogError(Code.BAD_NOTE, "receipt: a node is 32 bytes")
    return nodes
