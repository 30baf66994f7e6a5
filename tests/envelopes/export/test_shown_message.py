"""An audit message in a receipt: lines of one spelling, items that lead to `dig`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealbus.envelopes.errors import EnvelopeError, LogError
from sealbus.envelopes.export.receipt import ShownItem, ShownMessage, show_items
from sealbus.envelopes.trust.merkle import leaf_hash, root
from sealbus.envelopes.trust.proof import Credential, Proof

ITEMS = [b"first", b"second", b"third"]
DIG = root([leaf_hash(item) for item in ITEMS])
SHOWN = ShownMessage(
    index=7,
    sequence=40,
    stored=1_764_000_000_000_000,
    header=b"header",
    proof=Proof(3, 1, (bytes(32), bytes(32)), bytes(64)),
    credential=Credential(1, b"token"),
    items=show_items(ITEMS, [0, 2]),
)
LINES = SHOWN.lines()


def test_it_is_read_as_it_is_written() -> None:
    assert ShownMessage.parse(LINES) == SHOWN
    assert [line.split(" ")[0] for line in LINES] == ["entry", "header", "proof", "credential", "item", "item"]
    SHOWN.check_items(DIG)


def test_items_that_are_of_another_body() -> None:
    with pytest.raises(EnvelopeError):
        SHOWN.check_items(bytes(32))
    for text in (LINES[4].replace("right:", "left:", 1), " ".join(LINES[5].split(" ")[:-1])):
        other = ShownMessage.parse([*LINES[:4], text])
        with pytest.raises(EnvelopeError):
            other.check_items(DIG)


def test_items_stand_in_their_order_and_once() -> None:
    for items in ([LINES[5], LINES[4]], [LINES[4], LINES[4]], [LINES[4], LINES[5], LINES[5]]):
        with pytest.raises(LogError, match="not in the order"):
            ShownMessage.parse([*LINES[:4], *items])
    three = replace(SHOWN, items=show_items(ITEMS, [0, 1, 2])).lines()
    assert len(ShownMessage.parse(three).items) == 3
    for order in ((1, 0, 2), (0, 2, 1), (0, 0, 1), (0, 1, 1)):
        with pytest.raises(LogError, match="not in the order"):
            ShownMessage.parse([*three[:4], *(three[4 + at] for at in order)])
    many = [bytes([number]) for number in range(21)]
    everything = show_items(many, range(21))
    assert [item.place for item in everything] == sorted({item.place for item in everything})
    replace(SHOWN, items=everything).check_items(root([leaf_hash(item) for item in many]))


@pytest.mark.parametrize("missing", range(5))
def test_a_line_is_missing(missing: int) -> None:
    lines = LINES[:5]
    with pytest.raises(LogError):
        ShownMessage.parse([line for number, line in enumerate(lines) if number != missing])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (0, "entry 7 40"),
        (0, "entry 7 40 1 1"),
        (0, "entry 07 40 1"),
        (0, "entry -1 40 1"),
        (1, "header"),
        (1, "header ="),
        (2, "proof 0 0 " + "A" * 86 + "=="),
        (2, "proof 1 0 AAAA"),
        (2, LINES[2] + " AAAA"),
        (3, "credential 1"),
        (4, "item"),
        (4, "items 3"),
        (4, LINES[4] + " AAAA"),
        (4, LINES[4] + " left:AAAA"),
        (4, LINES[4].replace("right:", "")),
        (4, LINES[4].replace("right:", "Right:")),
        (4, LINES[4].replace("right:", "right::")),
        (4, LINES[4].replace("right:", "left2:")),
        (4, LINES[4].replace("right:", "Left:")),
        (4, LINES[4].replace("right:", ":")),
        (4, LINES[4].replace("item", "Item")),
        (4, LINES[4].replace("item", "items")),
        (4, LINES[4].replace("right:", "right")),
        (4, LINES[4] + f" {LINES[4].split(' ')[-1]}" * 12),
    ],
)
def test_a_line_of_another_form(line: int, text: str) -> None:
    lines = list(LINES)
    lines[line] = text
    with pytest.raises(LogError):
        ShownMessage.parse(lines)


def test_items_are_shown_with_their_paths() -> None:
    [only] = show_items([b"alone"], [0])
    assert only == ShownItem(b"alone", ())
