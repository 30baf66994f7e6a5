"""Frames are what the server reads as one message; subjects and headers that would be more are refused."""

from __future__ import annotations

import pytest

from sealbus.bus.nats.connection.frames import (
    check_pattern,
    check_subject,
    header_lines,
    header_value,
    publish_frame,
    publish_parts,
    status_of,
)
from sealbus.bus.ports import Outgoing
from sealbus.envelopes.errors import ConfigurationError

ID = "0123456789abcdef0123456789abcdef"


def test_frames() -> None:
    assert publish_frame(Outgoing(subject="a.b", payload=b"xy")) == b"PUB a.b 2\r\nxy\r\n"
    assert publish_frame(Outgoing(subject="a.b", payload=b""), "_INBOX.a.1") == b"PUB a.b _INBOX.a.1 0\r\n\r\n"
    block = f"NATS/1.0\r\nNats-Msg-Id: {ID}\r\ntraceparent: 00-1\r\n\r\n".encode()
    full = Outgoing(subject="a.b", payload=b"xy", message_id=ID, headers={"traceparent": "00-1"})
    size = len(block)
    assert publish_frame(full, "r") == b"HPUB a.b r %d %d\r\n%bxy\r\n" % (size, size + 2, block)
    before, after, carried = publish_parts(full, replied=True)
    assert before + b"r" + after + b"xy\r\n" == publish_frame(full, "r")
    assert carried == size + 2


@pytest.mark.parametrize("subject", ["a", "a.b.c", "$JS.API.INFO", "_INBOX.a-b.C_1", "x" * 255])
def test_subjects(subject: str) -> None:
    check_subject(subject)
    check_pattern(subject)


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nb", "a\n", "a\x00", "a\x7f", "x" * 256, "é" * 128]
)
def test_what_is_no_subject(subject: str) -> None:
    for check in (check_subject, check_pattern):
        with pytest.raises(ConfigurationError):
            check(subject)


@pytest.mark.parametrize("pattern", ["*", ">", "a.*", "*.a", "a.>", "*.*.>"])
def test_patterns_are_not_published_to(pattern: str) -> None:
    check_pattern(pattern)
    with pytest.raises(ConfigurationError):
        check_subject(pattern)


@pytest.mark.parametrize("pattern", [">.a", "a*", "a.>b", "a.>.b", "**", "a.*b"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ConfigurationError):
        check_pattern(pattern)


@pytest.mark.parametrize("message_id", ["1", ID.upper(), ID + "0", ID[:-1] + "\n", "g" * 32])
def test_message_ids(message_id: str) -> None:
    with pytest.raises(ConfigurationError):
        header_lines(message_id, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [("", "1"), ("a b", "1"), ("a:", "1"), ("a\r\n", "1"), ("NATS-MSG-ID", "1"), ("a", "1\n"), ("a", " 1"), ("a", "é")],
)
def test_headers(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError):
        header_lines("", {name: value})


def test_reading_blocks() -> None:
    assert status_of(b"NATS/1.0 404 No Messages\r\n\r\n") == (404, "No Messages")
    assert status_of(b"NATS/1.0 503\r\n\r\n") == (503, "")
    for block in (b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 40\r\n\r\n", b"NATS/1.0 404", b"x NATS/1.0 404\r\n"):
        assert status_of(block) == (0, "")
    block = b"NATS/1.0 408 X\r\nNats-Pending-Messages: 3\r\nOther: \xff\r\n\r\n"
    assert header_value(block, "Nats-Pending-Messages") == "3"
    assert header_value(block, "Pending-Messages") == ""
    assert header_value(block, "Other") == "\ufffd"
    assert header_value(b"\r\nA: 1", "A") == "1"
    assert header_value(b"\r\nA: 1\r\nA: 2\r\nB: 3\r\n\r\n", "A") == "2"
