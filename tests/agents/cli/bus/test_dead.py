"""How dead letters are named and printed, whatever is in them."""

from __future__ import annotations

import json
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner
from support.shop import Shop, Update

from sealbus.agents.cli.bus.dead import LetterName, as_document, as_line, command, shown
from sealbus.bus.inspection.dead import DeadLetter, Death
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.printable import printable
from sealbus.testing import TestBus


@pytest.fixture
async def letter() -> DeadLetter:
    async with TestBus(Shop().inventory) as bus:
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="42"))
        (stored,) = bus.stored("TASKS")
    envelope = parse_envelope(stored.payload)
    return DeadLetter(
        sequence=7,
        stored=1_795_538_577_975_307,
        subject="dead.inventory.update",
        payload=stored.payload,
        envelope=envelope,
        header=parse_header(envelope.header),
        user="alice",
        death=Death(code="handler_failed", detail="ValueError", deliveries=6),
    )


def test_a_line_and_an_object(letter: DeadLetter) -> None:
    assert letter.header is not None
    words = as_line(letter).split()
    assert words == [
        "#7",
        "2026-11-24T16:42:57.975Z",
        letter.header.id.hex(),
        "task.inventory.update",
        "from",
        "/agent/shop-web",
        "for",
        "alice",
        "handler_failed",
    ]
    document = json.loads(json.dumps(as_document(letter)))
    assert (document["letter"], document["message"], document["hash"]) == (
        7,
        letter.header.id.hex(),
        letter.header.digest.hex(),
    )
    assert (document["code"], document["deliveries"], document["verified"]) == ("handler_failed", 6, True)


def test_what_does_not_verify_or_is_no_message_is_marked(letter: DeadLetter) -> None:
    doubtful = as_line(replace(letter, refused="bad_digest", death=None))
    assert doubtful.endswith("reason unknown  UNVERIFIED: bad_digest")
    nothing = replace(letter, payload=b"junk", envelope=None, header=None, death=None, refused="malformed")
    assert as_line(nothing).endswith("dead.inventory.update: no message  reason unknown  UNVERIFIED: malformed")
    assert shown(nothing)[1:] == ["  4 bytes"]
    assert "message" not in as_document(nothing)


def test_what_a_letter_holds_does_nothing_to_a_terminal(letter: DeadLetter) -> None:
    assert letter.envelope is not None
    hostile = replace(
        letter,
        subject="dead.\x1b]0;x\x07.y",
        envelope=letter.envelope._replace(body=b"\x1b[2J\r\n\xff" + b"x" * 100_000),
        user="\u202eecila",
        death=Death(code="\x1b[31m", detail="\x00\u2028" + "y" * 256, deliveries=1),
    )
    lines = [printable(one) for one in shown(hostile)]
    assert all(one.isprintable() for one in lines)
    assert max(map(len, lines)) < 5_000
    assert any("the first 4096 of 100007 bytes" in one for one in lines)
    assert printable(as_line(replace(hostile, header=None))).isprintable()


@pytest.mark.parametrize(
    ("text", "found"),
    [("7", 7), ("#7", 7), ("1" * 32, b"\x11" * 16), ("aB" * 32, b"\xab" * 32), (str(2**63 - 1), 2**63 - 1)],
)
def test_a_letter_is_named_by_a_number_or_its_message(text: str, found: int | bytes) -> None:
    assert LetterName().convert(text, None, None) == found


@pytest.mark.parametrize("text", ["", "#", "0", "-1", "7.0", "x", "1" * 20, str(2**63), "\x1b[2J", "\u0667"])
def test_any_other_name_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number"):
        LetterName().convert(text, None, None)


@pytest.mark.parametrize("name", ["show", "retry", "drop"])
def test_nothing_is_done_to_all_letters_by_leaving_the_name_out(name: str) -> None:
    assert CliRunner().invoke(command, [name]).exit_code == 2
