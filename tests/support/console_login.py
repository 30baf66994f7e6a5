"""A browser without a screen: cookies, the login on the development identity provider's page, and the console's JSON."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import httpx2

__all__ = ["cookies_of", "json_of", "log_in"]


async def log_in(web: httpx2.AsyncClient, user: str, *, to: str = "/") -> httpx2.Response:
    """Log `user` in to the console that `web` talks to; return the answer that ends it."""
    begun = await web.get("/login", params={"to": to})
    page = await web.get(begun.headers["location"])
    [request] = re.findall(r'name="request" value="([^"]+)"', page.text)
    at = urlsplit(begun.headers["location"])
    origin = f"{at.scheme}://{at.netloc}"
    chosen = await web.post(f"{origin}{at.path}", data={"request": request, "user": user}, headers={"origin": origin})
    return await web.get(chosen.headers["location"])


def cookies_of(answer: httpx2.Response) -> list[str]:
    """Return what an answer sets."""
    return list(answer.headers.get_list("set-cookie"))


def json_of(answer: httpx2.Response, status: int = 200) -> Any:
    """Return the JSON of an answer, which must have this status."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    return answer.json()
