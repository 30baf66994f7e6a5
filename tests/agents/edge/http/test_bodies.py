"""Bodies: type, size, time and depth, each refused with its own status before anything decodes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from sealbus.agents.edge.http.bodies import idempotency_key, media_type, read_body, read_bytes
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.bus.sending.message import Content
from sealbus.envelopes.encoding.codec import encode
from sealbus.envelopes.errors import Code

LIMITS = replace(DEFAULT_EDGE_LIMITS, body_bytes=100, body_nesting=4)
JSON = {"content-type": "application/json"}
MSGPACK = {"content-type": "application/msgpack"}


def request(
    fields: Mapping[str, str] | Sequence[tuple[str, str]] = JSON,
    *chunks: bytes,
    then: Callable[[], Awaitable[dict[str, Any]]] | None = None,
) -> Request:
    """Return a request whose body comes in `chunks`; `then` says what comes after them, if not the end."""
    rows = fields.items() if isinstance(fields, Mapping) else fields
    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        return await then() if then is not None else {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.encode(), value.encode()) for name, value in rows]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


async def read(made: Request, charge: Callable[[int], None] = lambda _: None) -> Content:
    return await read_body(made, LIMITS, charge)


async def refused(made: Request) -> tuple[int, str]:
    with pytest.raises(EdgeError) as raised:
        await read(made)
    return raised.value.status, raised.value.code


async def test_json_and_msgpack_come_as_they_are() -> None:
    answer = await read(request(JSON, b'{"a": ', b"1}"))
    assert (answer.body, answer.typ) == (b'{"a": 1}', "application/json")
    packed = encode({"a": [1, -1]})
    answer = await read(request(MSGPACK, packed))
    assert (answer.body, answer.typ) == (packed, "application/msgpack")


@pytest.mark.parametrize(
    "said",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_a_media_type_may_be_written_in_these_ways(said: str) -> None:
    assert media_type(request({"content-type": said}), ("application/json",)) == "application/json"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/jso"},
        {"content-type": "application/jsons"},
        {"content-type": "application/msgpac"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json, application/json"},
        {"content-type": "application/json; boundary=x"},
        [("content-type", "application/json"), ("content-type", "application/json")],
        {**JSON, "content-encoding": "gzip"},
        {**JSON, "content-encoding": "identity, gzip"},
    ],
)
async def test_another_type_or_coding_is_not_taken(fields: Mapping[str, str] | Sequence[tuple[str, str]]) -> None:
    assert await refused(request(fields, b"{}")) == (415, Code.UNSUPPORTED_MEDIA_TYPE)


async def test_identity_is_no_coding() -> None:
    assert (await read(request({**JSON, "content-encoding": "Identity"}, b"{}"))).body == b"{}"


async def test_size_is_bounded_by_what_is_said_and_by_what_comes() -> None:
    just = b'"' + b"x" * 98 + b'"'
    assert (await read(request({**JSON, "content-length": "100"}, just))).body == just

    async def never() -> dict[str, Any]:
        raise AssertionError("the body was read though its length was said to be too much")

    assert await refused(request({**JSON, "content-length": "101"}, then=never)) == (413, Code.TOO_LARGE)
    assert await refused(request(JSON, just, b" ", then=never)) == (413, Code.TOO_LARGE)
    assert await refused(request({**JSON, "content-length": "1"}, just + b" ", then=never)) == (413, Code.TOO_LARGE)


async def test_a_body_that_never_ends_is_not_waited_for() -> None:
    async def silent() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(EdgeError) as raised:
        await read_bytes(request(JSON, b"{", then=silent), 100, 0.01)
    assert (raised.value.status, raised.value.code) == (408, Code.REQUEST_TIMEOUT)


async def test_a_body_whose_sender_is_gone_is_no_body() -> None:
    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert await refused(request(JSON, b"{}", then=gone)) == (400, Code.MALFORMED)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"{}{}", b"NaN", b"[Infinity]", b'{"a":-Infinity}', b"\xef\xbb\xbf{}", b"{'a':1}"]
)
async def test_what_is_not_json_is_malformed(body: bytes) -> None:
    assert await refused(request(JSON, body)) == (400, Code.MALFORMED)


async def test_depth_is_bounded() -> None:
    assert (await read(request(JSON, b"[[[[]]]]"))).body == b"[[[[]]]]"
    assert await refused(request(JSON, b"[[[[[]]]]]")) == (400, Code.MALFORMED)
    assert await refused(request(JSON, b'{"a":[{"b":[{}]}]}')) == (400, Code.MALFORMED)


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", encode(1) + b"\x00", b"\xcc\x01", b"\x82\xa1b\x01\xa1a\x02", b"\x82\xa1a\x01\xa1a\x02"]
)
async def test_msgpack_is_canonical_or_malformed(body: bytes) -> None:
    assert await refused(request(MSGPACK, body)) == (400, Code.MALFORMED)


@pytest.mark.parametrize("key", ["a", "order 7", "x" * 255, "!~"])
def test_a_key_is_visible_text(key: str) -> None:
    assert idempotency_key(request({"idempotency-key": key})) == key


def test_no_key_is_none() -> None:
    assert idempotency_key(request({})) is None


@pytest.mark.parametrize("keys", [("",), (" a",), ("a ",), ("x" * 256,), ("a\tb",), ("é",), ("a", "a")])
def test_any_other_key_is_malformed(keys: Sequence[str]) -> None:
    with pytest.raises(EdgeError) as raised:
        idempotency_key(request([("idempotency-key", key) for key in keys]))
    assert (raised.value.status, raised.value.code) == (400, Code.MALFORMED)


async def test_who_sends_pays_for_the_size_before_anything_is_parsed() -> None:
    charged: list[int] = []
    await read(request(JSON, b'{"a":', b" 1}"), charged.append)
    assert charged == [8]

    def broke(size: int) -> None:
        charged.append(size)
        raise EdgeError(Code.RATE_LIMITED, 429)

    with pytest.raises(EdgeError) as raised:
        await read(request(JSON, b"{not JSON"), broke)
    assert (raised.value.status, charged) == (429, [8, 9])
