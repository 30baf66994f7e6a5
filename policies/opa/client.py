"""opa-python-client with our bounds: the only module that imports it.

The package follows redirects, tries failures again and reads an answer of any length. Here a request is made once, goes to
no other place with its token, and its answer is at most `ANSWER_BYTES`. The package cannot use a unix socket or a
certificate authority of the caller, so the sidecar and the central engine make their own requests (decision 0083).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Protocol, cast

import aiohttp
from opa_client import AsyncOpaClient  # type: ignore[import-untyped]  # it has no types
from opa_client.errors import PolicyNotFoundError  # type: ignore[import-untyped]  # as above

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable

__all__ = ["OpaClient", "open_client", "read_document"]

ANSWER_BYTES: Final = 16_777_216
"""Longest answer that is read."""


class OpaClient(Protocol):
    """The used part of the package's client. Raises `PolicyFailed` and `PolicyUnavailable` as `OpaAdmin.query` does."""

    async def check_health(self) -> bool:
        """Return whether OPA is healthy; false if it does not answer."""

    async def get_status(self) -> dict[str, object]:
        """Return the status document."""

    async def get_policies_list(self) -> list[str]:
        """Return the names of the policies."""

    async def get_data(self, data_name: str, query_params: Mapping[str, str]) -> dict[str, object]:
        """Return a document without an input: `read_document`."""

    async def query_rule(
        self, input_data: object, package_path: str, *, query_params: Mapping[str, str]
    ) -> dict[str, object]:
        """Return a document for an input."""

    async def ad_hoc_query(self, query: str, input_data: object, query_params: Mapping[str, str]) -> dict[str, object]:
        """Return the bindings of a query; an input that is false or empty is left out."""


class _Answer:
    """What the client asks of an answer: its JSON object, read whole, whose status is 200."""

    status: Final = HTTPStatus.OK

    def __init__(self, said: dict[str, object]) -> None:
        self._said = said

    def raise_for_status(self) -> None:
        """Do nothing: other answers are refused before."""

    async def json(self) -> dict[str, object]:
        """Return the object; an empty one for anything else."""
        return self._said


class _BoundedClient(AsyncOpaClient):  # type: ignore[misc]  # as above
    @asynccontextmanager
    async def _request(self, method: str, url: str, **given: object) -> AsyncGenerator[_Answer, None]:
        """Make one request; raise `PolicyFailed` for status 400 and 500, `PolicyUnavailable` for any other but 200."""
        path, *parameters = url.split("?", 1)
        # OPA redirects a path that ends with a slash, which the package writes: /v1/policies/.
        place = "?".join([path.rstrip("/"), *parameters])
        async with self._session.request(method, place, allow_redirects=False, **given) as answer:
            raw = await _read(answer)
        if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR):
            raise PolicyFailed(f"OPA refuses the query or cannot evaluate it: status {answer.status}")
        if answer.status != HTTPStatus.OK:
            raise PolicyUnavailable(f"OPA answered with status {answer.status}")
        try:
            said = json.loads(raw or b"{}")
        except ValueError as error:
            raise PolicyUnavailable("OPA's answer is not JSON") from error
        yield _Answer(said if isinstance(said, dict) else {})


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer; raise `PolicyUnavailable` for one beyond `ANSWER_BYTES`."""
    raw = bytearray()
    async for part in answer.content.iter_any():
        raw += part
        if len(raw) > ANSWER_BYTES:
            raise PolicyUnavailable("OPA's answer is too long")
    return bytes(raw)


@asynccontextmanager
async def open_client(
    host: str, port: int, *, tls: bool, token: str, seconds: float
) -> AsyncGenerator[OpaClient, None]:
    """Open a client of the OPA at `host` and `port`; each request has `seconds`. Raises `PolicyUnavailable` for no answer."""
    try:
        async with _BoundedClient(
            host=host, port=port, ssl=tls, token=token or None, retries=0, timeout=seconds
        ) as client:
            yield cast("OpaClient", client)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise PolicyUnavailable(f"OPA at {host}:{port} does not answer: {type(error).__name__}") from error


async def read_document(client: OpaClient, path: str, parameters: Mapping[str, str]) -> dict[str, object]:
    """Return OPA's answer about the document at `path`, such as `sealbus/authz`, without an input; empty if undefined."""
    try:
        return await client.get_data(path, parameters)
    except PolicyNotFoundError:
        return {}
