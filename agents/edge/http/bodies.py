"""Request bodies: their type, size, time and depth are checked before anything else looks at them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.sdk.bodies import BODY_ITEMS, JSON, MSGPACK
from sealbus.bus.sending.message import Content
from sealbus.envelopes.encoding.codec import decode
from sealbus.envelopes.encoding.strict_json import deeper_than
from sealbus.envelopes.errors import Code, EnvelopeError

_MEDIA_TYPE: Final = re.compile(r"([a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+)[ \t]*(?:;[ \t]*charset=\"?utf-8\"?[ \t]*)?")
_KEY: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
"""An idempotency key: visible ASCII, as a field's value is, at most as long as `idm` (SPEC.md section 3)."""


_FORM: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 16


async def read_body(
    request: Request,
    limits: EdgeLimits,
    charge: Callable[[int], None] | None = None,
    allowed: tuple[str, ...] = (JSON, MSGPACK),
) -> Content:
    """Return the body with its media type, one of `allowed`, well formed and no deeper than `limits` allow.

    A type other than msgpack is some sort of JSON.

    `charge` is called with its size before it is parsed, and may raise. Raises `EdgeError`: 415 for another type or a content
    coding, 413, 408, 400 (`malformed`) for a body that does not match its type.
    """
    typ = media_type(request, allowed)
    body = await read_bytes(request, limits.body_bytes, limits.body_seconds)
    if charge is not None:
        charge(len(body))
    if typ == MSGPACK:
        _check_msgpack(body, limits.body_bytes)
    else:
        _check_json(body, limits.body_nesting)
    return Content(body=body, typ=typ)


async def read_form(request: Request, limits: EdgeLimits) -> Mapping[str, str]:
    """Return the fields of a form, each of which is there once.

    Raises `EdgeError`: 415, 413, 408 as `read_body`, and 400 (`malformed`, `invalid_request`) for anything else.
    """
    media_type(request, (_FORM,))
    body = await read_bytes(request, limits.form_bytes, limits.body_seconds)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as error:
        raise EdgeError(Code.MALFORMED, 400, "the body is not a form", error="invalid_request") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise EdgeError(Code.MALFORMED, 400, "a parameter occurs twice", error="invalid_request")
    return form


def media_type(request: Request, allowed: tuple[str, ...]) -> str:
    """Return the request's media type, one of `allowed`; raise 415 otherwise, or if the body has a content coding."""
    fields = request.headers.getlist("content-type")
    match = _MEDIA_TYPE.fullmatch(fields[0].strip().lower()) if len(fields) == 1 else None
    if match is None or match[1] not in allowed:
        raise EdgeError(Code.UNSUPPORTED_MEDIA_TYPE, 415, f"Content-Type must be {' or '.join(allowed)}")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise EdgeError(Code.UNSUPPORTED_MEDIA_TYPE, 415, "Content-Encoding is not accepted")
    return match[1]


async def read_bytes(request: Request, limit: int, seconds: float) -> bytes:
    """Return the whole body; raise 413 for one over `limit` bytes, 408 for one that takes over `seconds`."""
    # h11 has made sure that there is one length, in digits, or none.
    if int(request.headers.get("content-length", "0")) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise EdgeError(Code.REQUEST_TIMEOUT, 408, f"the body took over {seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise EdgeError(Code.MALFORMED, 400, "the body ended early") from error
    return bytes(body)


def replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives `body`, which was read already, and then continues with `receive`."""
    read = False

    async def replayed() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def idempotency_key(request: Request) -> str | None:
    """Return the value of `Idempotency-Key`, None without one; raise 400 for two or for an invalid one."""
    fields = request.headers.getlist("idempotency-key")
    if not fields:
        return None
    if len(fields) > 1 or not _KEY.fullmatch(fields[0]):
        raise EdgeError(Code.MALFORMED, 400, "Idempotency-Key must be one value of 1 to 255 visible characters")
    return fields[0]


def _too_large(limit: int) -> EdgeError:
    return EdgeError(Code.TOO_LARGE, 413, f"the body is over {limit} bytes")


def _check_json(body: bytes, nesting: int) -> None:
    try:
        text = body.decode("utf-8")
        if deeper_than(text, nesting):
            raise EdgeError(Code.MALFORMED, 400, f"the body nests over {nesting} deep")
        json.loads(text, parse_constant=_refused)
    except ValueError as error:
        raise EdgeError(Code.MALFORMED, 400, "the body is not JSON") from error


def _check_msgpack(body: bytes, limit: int) -> None:
    try:
        decode(body, items=BODY_ITEMS, entries=BODY_ITEMS, text_bytes=limit, negative=True, step=0)
    except EnvelopeError as error:
        raise EdgeError(Code.MALFORMED, 400, "the body is not canonical msgpack") from error


def _refused(constant: str) -> None:
    raise ValueError(constant)
