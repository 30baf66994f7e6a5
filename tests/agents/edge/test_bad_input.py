"""Every bad request, with its status and code. None of it reaches the bus: the streams are as they were before."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import pytest
from joserfc.jwk import ECKey
from support.edge import Door, door, raw
from support.issuer import LoopbackIssuer, compact, new_key
from support.shop import Shop

TASK = "/v1/tasks/inventory/update"
CALL = "/v1/calls/pricing/quote"
GOOD = b'{"item_id": "42"}'


@pytest.fixture
async def edge() -> AsyncIterator[Door]:
    shop = Shop()
    async with door(
        shop.inventory, shop.pricing, limits={"body_bytes": 2_000, "body_nesting": 8, "body_seconds": 1}
    ) as running:
        yield running


Token = Callable[[LoopbackIssuer], str]


def _public_key_as_secret(issuer: LoopbackIssuer) -> str:
    key = issuer.keys["key-1"]
    assert isinstance(key, ECKey)
    secret = key.as_pem(private=False)
    return compact(
        issuer.header(alg="HS256"), issuer.claims(), lambda data: hmac.new(secret, data, hashlib.sha256).digest()
    )


TOKENS: dict[str, tuple[Token, int, str]] = {
    "alg none": (lambda i: compact(i.header(alg="none"), i.claims(), lambda _: b""), 401, "bad_token"),
    "HS256 with the public key": (_public_key_as_secret, 401, "bad_token"),
    "unknown kid": (lambda i: i.token(header={"kid": "other"}), 401, "bad_token"),
    "another's key": (lambda i: i.token(key=new_key()), 401, "bad_token"),
    "jwk in the header": (lambda i: i.token(header={"jwk": {"kty": "EC"}}), 401, "bad_token"),
    "jku in the header": (lambda i: i.token(header={"jku": "http://127.0.0.1:1/"}), 401, "bad_token"),
    "x5u in the header": (lambda i: i.token(header={"x5u": "http://127.0.0.1:1/"}), 401, "bad_token"),
    "an ID token": (lambda i: i.token(header={"typ": "JWT"}), 401, "bad_token"),
    "no typ": (lambda i: i.token(header={"typ": None}), 401, "bad_token"),
    "unknown issuer": (lambda i: i.token(iss="https://other.example"), 401, "unknown_issuer"),
    "for someone else": (lambda i: i.token(aud="https://other.example"), 401, "token_audience"),
    "expired by a second": (lambda i: i.token(life=-1), 401, "token_expired"),
    "not yet issued": (lambda i: i.token(iat=4_000_000_000, exp=4_000_000_100), 401, "bad_token"),
    "no subject": (lambda i: i.token(sub=None), 401, "bad_token"),
    "not a JWT": (lambda i: "abc", 401, "bad_token"),
    "over 16 KiB": (lambda i: i.token(extra="x" * 16_384), 401, "bad_token"),
    "1 MB of token": (lambda i: "x" * 1_000_000, 431, "too_large"),
}


@pytest.mark.parametrize("name", TOKENS)
async def test_a_token_that_is_not_taken(edge: Door, name: str) -> None:
    make, status, code = TOKENS[name]
    before = edge.published()
    for path in (TASK, CALL):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        fields = (
            f"Authorization: Bearer {make(edge.issuer)}\r\nContent-Length: {len(GOOD)}\r\nConnection: close\r\n\r\n"
        )
        answer = await raw(edge.edge.port, head.encode() + fields.encode() + GOOD)
        _refused(answer, status, code)
        assert (b'resource_metadata="https://edge.example/.well-known/oauth-protected-resource/api"' in answer) == (
            status == 401
        )
        assert (b'www-authenticate: Bearer error="invalid_token", ' in answer) == (status == 401)
    assert edge.published() == before


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A request with a good token that is wrong in one way."""

    status: int
    code: str
    path: str = TASK
    method: str = "POST"
    body: bytes = GOOD
    fields: Mapping[str, str] = field(default_factory=dict)
    closes: bool = False


REQUESTS: dict[str, Bad] = {
    "no such agent": Bad(path="/v1/tasks/nobody/update", status=404, code="not_found"),
    "an agent that is not shown": Bad(path="/v1/tasks/planner/plan", status=404, code="not_found"),
    "a verb that is not shown": Bad(path="/v1/calls/pricing/broken", status=404, code="not_found"),
    "a wildcard as the verb": Bad(path="/v1/tasks/inventory/*", status=404, code="not_found"),
    "dots in the verb": Bad(path="/v1/tasks/inventory/update.1", status=404, code="not_found"),
    "a line end in the verb": Bad(path="/v1/tasks/inventory/up%0adate", status=404, code="not_found"),
    "an empty agent": Bad(path="/v1/tasks//update", status=404, code="not_found"),
    "no such path": Bad(path="/v1/other", status=404, code="not_found"),
    "an escaped slash": Bad(path="/v1/tasks/inventory%2fupdate", status=405, code="method_not_allowed"),
    "an escaped letter": Bad(path="/v1/tasks/inventory/%75pdate", status=404, code="not_found"),
    "an escaped path": Bad(path="/%76%31/tasks/inventory/update", status=404, code="not_found"),
    "a NUL behind the verb": Bad(path=f"{TASK}%00", status=404, code="not_found"),
    "two slashes first": Bad(path=f"/{TASK}", status=404, code="not_found"),
    "dots in between": Bad(path="/v1/calls/../tasks/inventory/update", status=404, code="not_found"),
    "escaped dots in between": Bad(path="/v1/calls/%2e%2e/tasks/inventory/update", status=404, code="not_found"),
    "a parameter of the path": Bad(path=f"{TASK};x=y", status=404, code="not_found"),
    "letters of another script": Bad(path="/v1/tasks/%D1%96nventory/update", status=404, code="not_found"),
    "capital letters": Bad(path="/v1/tasks/Inventory/update", status=404, code="not_found"),
    "a whole URL": Bad(path=f"http://x{TASK}", status=404, code="not_found"),
    "a reply to an action": Bad(path="/v1/calls/inventory/read.reply", status=404, code="not_found"),
    "a partition": Bad(path=f"{TASK}/7", status=404, code="not_found"),
    "a slash too many": Bad(path=f"{TASK}/", status=404, code="not_found"),
    "another method": Bad(method="PUT", status=405, code="method_not_allowed"),
    "GET of a call": Bad(method="GET", path=CALL, status=405, code="method_not_allowed"),
    "no type": Bad(fields={"Content-Type": ""}, status=415, code="unsupported_media_type"),
    "a form": Bad(
        fields={"Content-Type": "application/x-www-form-urlencoded"}, status=415, code="unsupported_media_type"
    ),
    "another charset": Bad(
        fields={"Content-Type": "application/json; charset=utf-16"}, status=415, code="unsupported_media_type"
    ),
    "a compressed body": Bad(fields={"Content-Encoding": "gzip"}, status=415, code="unsupported_media_type"),
    "too large": Bad(body=b'"' + b"x" * 2_000 + b'"', status=413, code="too_large", closes=True),
    "too deep": Bad(body=b"[" * 9 + b"]" * 9, status=400, code="malformed"),
    "very deep": Bad(body=b"[" * 1_999, status=400, code="malformed"),
    "no JSON": Bad(body=b"{", status=400, code="malformed"),
    "no body": Bad(body=b"", status=400, code="malformed"),
    "not UTF-8": Bad(body=b'"\xff"', status=400, code="malformed"),
    "not a number": Bad(body=b"NaN", status=400, code="malformed"),
    "no msgpack": Bad(body=b"\xc1", fields={"Content-Type": "application/msgpack"}, status=400, code="malformed"),
    "msgpack that is not canonical": Bad(
        body=b"\xd9\x01a", fields={"Content-Type": "application/msgpack"}, status=400, code="malformed"
    ),
    "an empty idempotency key": Bad(fields={"Idempotency-Key": ""}, status=400, code="malformed"),
    "a long idempotency key": Bad(fields={"Idempotency-Key": "x" * 257}, status=400, code="malformed"),
    "an idempotency key of other letters": Bad(fields={"Idempotency-Key": "\xe9"}, status=400, code="malformed"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_that_is_not_taken(edge: Door, name: str) -> None:
    bad = REQUESTS[name]
    before = edge.published()
    fields = {
        "Host": "x",
        "Content-Type": "application/json",
        **edge.authorized(),
        "Content-Length": str(len(bad.body)),
        "Connection": "close",
        **bad.fields,
    }
    lines = [f"{bad.method} {bad.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    answer = await raw(edge.edge.port, "\r\n".join(lines).encode("latin-1") + bad.body)
    _refused(answer, bad.status, bad.code)
    assert edge.published() == before


HEADS: dict[str, tuple[bytes, int, str]] = {
    "two lengths": (b"Content-Length: 17\r\nContent-Length: 18\r\n", 400, "malformed"),
    "a length and chunks": (b"Content-Length: 17\r\nTransfer-Encoding: gzip, chunked\r\n", 501, "malformed"),
    "a length and plain chunks": (b"Content-Length: 17\r\nTransfer-Encoding: chunked\r\n", 400, "malformed"),
    "chunks and a length": (b"Transfer-Encoding: chunked\r\nContent-Length: 17\r\n", 400, "malformed"),
    "chunks twice": (b"Transfer-Encoding: chunked, chunked\r\n", 501, "malformed"),
    "a coding that is none": (b"Transfer-Encoding: xchunked\r\n", 501, "malformed"),
    "a coding behind a tab": (b"Transfer-Encoding:\x0bchunked\r\n", 400, "malformed"),
    "a length with a sign": (b"Content-Length: +17\r\n", 400, "malformed"),
    "a list of lengths": (b"Content-Length: 17, 18\r\n", 400, "malformed"),
    "a very long length": (b"Content-Length: " + b"1" * 5_000 + b"\r\n", 400, "malformed"),
    "two hosts": (b"Host: y\r\n", 400, "malformed"),
    "a bare line feed": (b"X: a\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400, "malformed"),
    "a NUL in a field": (b"X: a\x00b\r\n", 400, "malformed"),
    "more fields than a browser has": (b"".join(b"X%d: a\r\n" % n for n in range(200)), 431, "too_large"),
    "a large head in one piece": (b"X: " + b"a" * 60_000 + b"\r\n", 431, "too_large"),
    "a length that is none": (b"Content-Length: 0x11\r\n", 400, "malformed"),
    "two tokens": (b"Authorization: Bearer x\r\n", 400, "malformed"),
    "two idempotency keys": (b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n", 400, "malformed"),
    "two types": (b"Content-Type: application/msgpack\r\nContent-Length: 17\r\n", 415, "unsupported_media_type"),
    "a folded field": (b"X: a\r\n b\r\nContent-Length: 0x\r\n", 400, "malformed"),
    "a name with a space": (b"X y: a\r\n", 400, "malformed"),
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_that_two_readers_could_read_differently(edge: Door, name: str) -> None:
    fields, status, code = HEADS[name]
    before = edge.published()
    token = edge.issuer.token()
    head = f"POST {TASK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    sent = head.encode() + f"Authorization: Bearer {token}\r\n".encode() + fields + b"\r\n" + GOOD
    # What follows is a request by itself for whoever took the body to be shorter.
    answer = await raw(edge.edge.port, sent + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    _refused(answer, status if status != 501 else 400, code)
    assert len(re.findall(rb"HTTP/1\.1 [0-9]", answer)) == 1
    assert edge.published() == before


async def test_a_request_of_http_0_9_or_of_no_host_is_refused(edge: Door) -> None:
    for request in (b"GET /v1/tasks/x\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/2.0\r\nHost: x\r\n\r\n"):
        _refused(await raw(edge.edge.port, request), 400, "malformed")


async def test_chunks_of_http_1_0_are_refused(edge: Door) -> None:
    head = (
        f"POST {TASK} HTTP/1.0\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {edge.issuer.token()}\r\n\r\n"
    )
    answer = await raw(edge.edge.port, head.encode() + b"11\r\n" + GOOD + b"  \r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not any(edge.published().values())


@pytest.mark.slow
async def test_what_one_reads_for_chunks_and_another_not_is_refused(edge: Door) -> None:
    head = (
        f"POST {TASK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {edge.issuer.token()}\r\nConnection: close\r\n\r\n"
    ).encode()
    for body in (
        b"0x11\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"-1\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"1_1\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"11\r\n" + GOOD + b"xx0\r\n\r\n",
        b"11\n" + GOOD + b"\n0\n\n",
    ):
        answer = await raw(edge.edge.port, head + body)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ")), body
    assert not any(edge.published().values())


async def test_a_chunk_extension_without_end_is_refused() -> None:
    # Without the short time for a body that the others have: however slowly it comes, its size is what is refused.
    async with door(Shop().inventory, limits={"body_seconds": 60}) as edge:
        head = (
            f"POST {TASK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            f"Authorization: Bearer {edge.issuer.token()}\r\n\r\n"
        ).encode()
        answer = await raw(edge.edge.port, head, b"11;", *(b"x" * 8_192 for _ in range(8)), pause=0.01)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert not any(edge.published().values())


@pytest.mark.parametrize(
    "credentials",
    ["", "Basic YWxpY2U6eA==", "Bearer", "Bearer a b", "Bearer x,y", 'Bearer "x"', "DPoP", "bearer\tx"],
)
async def test_credentials_that_are_no_bearer_token(edge: Door, credentials: str) -> None:
    fields = {"Content-Type": "application/json", **({"Authorization": credentials} if credentials else {})}
    answer = await edge.http.post(TASK, content=GOOD, headers=fields)
    assert (answer.status_code, answer.json()["code"]) in ((401, "no_token"), (400, "malformed"))
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith("Bearer ")
    assert ", DPoP " in challenge
    assert ("error=" in challenge) == (answer.status_code == 400)
    assert not any(edge.published().values())


@pytest.mark.parametrize("where", ["query", "form"])
async def test_a_token_elsewhere_than_in_its_field_is_none(edge: Door, where: str) -> None:
    token = edge.issuer.token()
    path = f"{TASK}?access_token={token}" if where == "query" else TASK
    body = f"access_token={token}".encode() if where == "form" else GOOD
    answer = await edge.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (401, "no_token")


async def test_an_issuer_whose_keys_cannot_be_had_is_unavailable(edge: Door) -> None:
    edge.issuer.key_set.status = 500
    answer = await edge.post(TASK, {"item_id": "42"})
    assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert not any(edge.published().values())


async def test_a_flood_of_unknown_keys_causes_no_flood_of_fetches(edge: Door) -> None:
    assert (await edge.post(TASK, {"item_id": "42"})).status_code == 202
    for number in range(40):
        await edge.post(TASK, {}, headers={"Authorization": f"Bearer {edge.issuer.token(header={'kid': str(number)})}"})
    assert edge.issuer.fetches <= 2


def _refused(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"content-type: application/problem+json" in head.lower()
    assert b"\r\nserver:" not in head.lower()
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)
