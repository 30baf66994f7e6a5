"""Whether any of several health addresses says yes: such as those of the callout responders, before a reload."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx2

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["HealthAddresses"]

ANSWER_SECONDS: Final = 2.0
_OK: Final = 200


class HealthAddresses:
    """Addresses such as `http://host:port/readyz`, each of which answers 200 while what is behind it is healthy.

    Raises `ConfigurationError` for what is no such address.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        for url in urls:
            if not _is_http(url):
                raise ConfigurationError(f"health address {url!r}: write http://host:port/path")
        self.urls: Final = tuple(urls)

    async def any_healthy(self) -> bool:
        """Ask all at once and say within two seconds whether any is healthy; what is no answer is a no."""
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=ANSWER_SECONDS) as client:
            asking = [asyncio.create_task(_answers(client, url)) for url in self.urls]
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    for answer in asyncio.as_completed(asking):
                        if await answer:
                            return True
            except TimeoutError:
                pass
            finally:
                for one in asking:
                    one.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
        return False


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def _answers(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        # The body is not read: a page without end is nobody's business here.
        async with client.stream("GET", url) as answer:
            return answer.status_code == _OK
    except httpx2.HTTPError:
        return False
