from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.edge.http.protocol import StrictConnection


def _connection(data: bytes) -> StrictConnection:
    connection = StrictConnection(head_bytes=200, fields=4)
    connection.receive_data(data)
    return connection


def _status(data: bytes) -> int:
    with pytest.raises(h11.RemoteProtocolError) as caught:
        _connection(data).next_event()
    return caught.value.error_status_hint


HOST = b"GET / HTTP/1.1\r\nHost: x\r\n"


def test_what_is_plain_passes_with_line_feeds_in_its_body_and_a_further_request_behind_it() -> None:
    connection = _connection(HOST + b"Content-Length: 4\r\n\r\n{\n\n}" + HOST + b"\r\n")
    events = [connection.next_event() for _ in range(4)]
    assert isinstance(events[0], h11.Request)
    assert isinstance(events[1], h11.Data)
    assert bytes(events[1].data) == b"{\n\n}"
    assert isinstance(events[2], h11.EndOfMessage)
    assert events[3] is h11.PAUSED


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HOST + b"X: a\nY: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        # Told before the head is complete.
        (b"GET / HTTP/1.1\n", 400),
        (HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (HOST + b"content-length: 1\r\nX: a\r\nCONTENT-LENGTH:1\r\n\r\n", 400),
        (HOST + b"Content-Length: 1, 1\r\n\r\n", 400),
        (HOST + b"Content-Length: +1\r\n\r\n", 400),
        (HOST + b"X: a\r\n b\r\n\r\n", 400),
        (HOST + b"X: a\r\n\tb: c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        # Told before the head is complete, too.
        (HOST + b"X: a\r\n ", 400),
        (HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (HOST + b"X: " + b"a" * 200 + b"\r\n\r\n", 431),
        (HOST + b"X: " + b"a" * 200, 431),
        (HOST + b"X: a\r\n" * 4 + b"\r\n", 431),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes, status: int) -> None:
    assert _status(data) == status


@given(
    st.lists(
        st.sampled_from([b"\r\n", b"\n", b"\r", b"X: a", b"Content-Length: 1", b"Transfer-Encoding: chunked", b" y"])
    )
)
def test_no_head_passes_with_two_framings_or_a_bare_line_feed(lines: list[bytes]) -> None:
    head = HOST + b"".join(lines) + b"\r\n\r\n"
    try:
        event = _connection(head).next_event()
    except h11.RemoteProtocolError:
        return
    assert isinstance(event, h11.Request)
    names = [name for name, _ in event.headers]
    assert not {b"content-length", b"transfer-encoding"} <= set(names)
    before_the_body = head.partition(b"\r\n\r\n")[0]
    assert before_the_body.count(b"\r\nContent-Length") == names.count(b"content-length") <= 1
    assert b"\r\n " not in before_the_body
    assert b"\n" not in head.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"")


def test_white_space_in_a_length_takes_no_long_search() -> None:
    head = HOST + b"Content-Length: 1" + b" " * 1_000_000 + b"1\r\n\r\n"
    connection = StrictConnection(head_bytes=len(head), fields=4)
    connection.receive_data(head)
    with pytest.raises(h11.RemoteProtocolError, match="length"):
        connection.next_event()


@pytest.mark.parametrize("length", [b"1", b" 1", b"\t1 \t", b"1 "])
def test_white_space_around_a_length_is_none_of_it(length: bytes) -> None:
    assert isinstance(_connection(HOST + b"Content-Length:" + length + b"\r\n\r\n").next_event(), h11.Request)
