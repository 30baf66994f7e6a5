"""Reads the monitoring pages of a nats-server or of a process of ours, whose facts clients of NATS cannot see."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import httpx2

from sealbus.envelopes.errors import BusUnavailable

ANSWER_SECONDS: Final = 5.0
ANSWER_BYTES: Final = 1_048_576
"""Most bytes of a page; /varz of a nats-server 2.15.1 has some 5 KB."""
_OK: Final = 200


async def read_varz(url: str) -> bytes:
    """Return the document `/varz` at the monitoring address `url`, such as `http://127.0.0.1:8222`.

    Raises `BusUnavailable`, one line, if there is no such answer within five seconds.
    """
    return await read_page(f"{url.rstrip('/')}/varz")


async def read_page(page: str, *, statuses: Collection[int] = (_OK,)) -> bytes:
    """Return the document at the URL `page`, answered with one of `statuses`; raises as `read_varz`."""
    try:
        async with (
            httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=ANSWER_SECONDS) as client,
            client.stream("GET", page) as answer,
        ):
            if answer.status_code not in statuses:
                raise BusUnavailable(f"{page}: the answer is {answer.status_code}")
            data = b""
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > ANSWER_BYTES:
                    raise BusUnavailable(f"{page}: the answer is over {ANSWER_BYTES} bytes")
            return data
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise BusUnavailable(f"{page}: {type(error).__name__}: is this the server's monitoring port?") from error
