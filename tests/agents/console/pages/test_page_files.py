"""The pages: each file with headers that let a browser run nothing else, and nothing beside the files."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from sealbus.agents.console.pages.page_files import PAGE_HEADERS, Pages
from sealbus.agents.edge.http.problem import EdgeError


def request(name: str = "", tag: str = "") -> Request:
    headers = [(b"if-none-match", tag.encode())] if tag else []
    return Request({"type": "http", "headers": headers, "path_params": {"name": name}, "query_string": b""})


async def test_the_document_has_all_headers_and_is_not_sent_twice() -> None:
    pages = Pages()
    first = await pages.index(request())
    assert first.status_code == 200
    for name, value in PAGE_HEADERS.items():
        if name != "cache-control":
            assert first.headers[name] == value
    again = await pages.index(request(tag=first.headers["etag"]))
    assert (again.status_code, again.body) == (304, b"")
    assert again.headers["content-security-policy"] == PAGE_HEADERS["content-security-policy"]


async def test_only_the_files_are_served() -> None:
    pages = Pages()
    assert (await pages.icon(request())).media_type == "image/svg+xml"
    assert (await pages.file(request("index.html"))).media_type == "text/html; charset=utf-8"
    for name in ("", "../agent.py", "/etc/passwd", "nothing.js", "__init__.py"):
        with pytest.raises(EdgeError):
            await pages.file(request(name))
