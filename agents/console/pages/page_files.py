"""Serve the console's pages: files that are read once, with headers that keep a browser from running anything else."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from types import MappingProxyType
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.envelopes.errors import Code

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The browser refuses everything from elsewhere, everything inline, and text that becomes markup."""
PAGE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cache-control": "no-store",
        "content-security-policy": _POLICY,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
)
"""Headers of every answer of the console."""

_TYPES: Final = MappingProxyType(
    {
        "css": "text/css; charset=utf-8",
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
)


class _File(NamedTuple):
    data: bytes
    typ: str
    tag: str


class Pages:
    """The files in `static`, in memory."""

    def __init__(self) -> None:
        self._files = {
            file.name: _file(file.name, file.read_bytes())
            for file in files("sealbus.agents.console.pages").joinpath("static").iterdir()
            if file.name.rpartition(".")[2] in _TYPES
        }

    async def index(self, request: Request) -> Response:
        """`GET` of any page: the same document, whose script shows the view of the address."""
        return self._answer("index.html", request)

    async def file(self, request: Request) -> Response:
        """`GET /static/{name}`."""
        return self._answer(request.path_params["name"], request)

    async def icon(self, request: Request) -> Response:
        """`GET /favicon.ico`."""
        return self._answer("icon.svg", request)

    def _answer(self, name: str, request: Request) -> Response:
        file = self._files.get(name)
        if file is None:
            raise EdgeError(Code.NOT_FOUND, 404, "no such page")
        headers = {**PAGE_HEADERS, "cache-control": "no-cache", "etag": file.tag}
        if request.headers.get("if-none-match") == file.tag:
            return Response(None, 304, headers)
        return Response(file.data, 200, headers, file.typ)


def _file(name: str, data: bytes) -> _File:
    return _File(data, _TYPES[name.rpartition(".")[2]], f'"{sha256(data).hexdigest()[:32]}"')
