"""The form of a receipt: one spelling, and its parts where they must be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.receipts import message_ids, receipts_of

from sealbus.envelopes.errors import LogError
from sealbus.envelopes.export.receipt import EarlierCheckpoint, RecordReceipt

GOOD = receipts_of(message_ids()[0])[0][1]
TEXT = GOOD.decode()


def test_it_is_read_as_it_is_written() -> None:
    receipt = RecordReceipt.parse(GOOD)
    assert receipt.encode() == GOOD
    assert len(receipt.bundles) == 1
    assert len(GOOD) < 10_000
    assert TEXT.startswith("sealbus-receipt@v1\nbundle\nentry ")
    assert "\n\nc2sp.org/tlog-proof@v1\nindex " in TEXT


def without(line: str) -> str:
    return "\n".join(one for one in TEXT.split("\n") if not one.startswith(line))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        TEXT.partition("\n\n")[0],
        TEXT.replace("@v1", "@v2", 1),
        without("record"),
        without("path"),
        without("bundle"),
        without("index"),
        TEXT.replace("\nrecord\n", "\nbundle\n"),
        TEXT.replace("\nrecord\n", "\nrecorD\n"),
        TEXT.replace("\nindex ", "\nindex 1"),
        TEXT.replace("\nindex ", "\nextra AAAA\nindex "),
        TEXT.replace("\npath ", "\npath = "),
        TEXT.replace("sealbus", "Sealbus", 1),
        TEXT.replace("@v1\nbundle", "@v11\nbundle", 1),
        TEXT.replace("\nbundle\n", "\nBundle\n"),
        TEXT.replace("\nbundle\n", "\nbundles\n"),
        TEXT.replace("\npath ", "\nPath "),
        TEXT.replace("\npath ", "\npaths "),
        TEXT.replace("\nrecord\n", "\nrecords\n"),
        TEXT.replace("\nrecord\n", "\nRecord\n"),
        TEXT.replace("\n\nc2sp", "\nEarlier 1 AAAA\n\nc2sp"),
        TEXT.replace("\n\nc2sp", "\nearliers 1 AAAA\n\nc2sp"),
        TEXT.replace("\n\nc2sp", "\nearlier 1\n\nc2sp"),
        TEXT.replace("\n\nc2sp", "\nearlier 1 AAAA\nEarlier 2 AAAA\n\nc2sp"),
        TEXT.replace("\n\nc2sp", "\nearlier 1 AAAA\nearliest 2 AAAA\n\nc2sp"),
        TEXT.replace("\n\nc2sp", "\nearlier 1 AAAA\nearliers 2 AAAA\n\nc2sp"),
        TEXT.replace("\n\nc2sp", "\nearlier 1 AAAA\nearlie 2 AAAA\n\nc2sp"),
        "\u00e9" + TEXT,
        "sealbus-receipt@v1\n\n" + TEXT.partition("\n\n")[2],
    ],
)
def test_what_is_no_receipt(text: str) -> None:
    with pytest.raises(LogError):
        RecordReceipt.parse(text.encode())


def test_an_earlier_checkpoint_may_have_no_path() -> None:
    receipt = RecordReceipt.parse(TEXT.replace("\n\nc2sp", "\nearlier 1 AAAA\n\nc2sp").encode())
    assert receipt.earlier == (EarlierCheckpoint(1, bytes(3), ()),)


def test_the_largest_is_written_and_read_and_one_byte_more_is_neither() -> None:
    receipt = RecordReceipt.parse(GOOD)
    note = receipt.log.note + b"x" * (2_097_152 - len(GOOD))
    largest = replace(receipt, log=replace(receipt.log, note=note))
    data = largest.encode()
    assert len(data) == 2_097_152
    assert RecordReceipt.parse(data) == largest
    with pytest.raises(LogError, match="too large"):
        replace(receipt, log=replace(receipt.log, note=note + b"x")).encode()
    with pytest.raises(LogError, match="too large"):
        RecordReceipt.parse(data + b"x")


def test_one_that_is_too_large_is_not_written() -> None:
    receipt = RecordReceipt.parse(GOOD)
    with pytest.raises(LogError):
        RecordReceipt(receipt.bundles * 2_000, receipt.message, receipt.log).encode()


def test_one_that_is_too_large_is_not_read() -> None:
    first, rest = TEXT.split("\n", 1)
    bundle, _, _ = rest.partition("record\n")
    many = f"{first}\n{bundle * 2_000}{rest}".encode()
    with pytest.raises(LogError, match="too large"):
        RecordReceipt.parse(many)
    assert len(RecordReceipt.parse(f"{first}\n{bundle * 20}{rest}".encode()).bundles) == 21
