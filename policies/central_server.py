"""One of the OPAs that the central engine asks: its connections, and whether it may be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.policies.breaker import Breaker, Passage
from sealbus.policies.opa_http import post
from sealbus.policies.opa_wire import BATCH_PATH, NoPolicy, Reply, batch_question, parse_reply
from sealbus.policies.svid_sessions import ClientTls, SvidSessions

__all__ = ["CentralServer"]

T = TypeVar("T")


class CentralServer:
    """The OPA at `url`, asked over at most `connections` connections; `sessions.run()` must run meanwhile.

    Raises `ConfigurationError` unless `url` is https://HOST or https://HOST:PORT and no more.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        self.url: Final = _checked(url)
        self.sessions: Final = SvidSessions(self.url, connections=connections)
        self.breaker: Final = Breaker()
        self.reason = ""
        """Why it last gave no answer."""
        self._connections: Final = connections

    async def ask(
        self,
        path: str,
        question: bytes,
        parse: Callable[[int, bytes], T],
        *,
        tls: ClientTls,
        until: float,
        passage: Passage,
        counts: bool,
    ) -> T:
        """Ask one question by `passage`; an answer that did not come is its failure if `counts`.

        Raises `PolicyUnavailable` where there is no answer by `until`, and what `parse` raises. That OPA could not
        evaluate is no failure of it, that it has no policy is.
        """
        try:
            value = await self._ask(path, question, parse, tls=tls, until=until)
        except (PolicyUnavailable, NoPolicy) as error:
            self.reason = error.detail
            if counts:
                passage.failed(asyncio.get_running_loop().time())
            raise
        except PolicyFailed:
            passage.succeeded()
            raise
        else:
            passage.succeeded()
            return value
        finally:
            passage.released()

    async def look(self, *, tls: ClientTls, until: float) -> Reply | PolicyUnavailable | PolicyFailed:
        """Return what it says to a question about nothing, which is asked whether it may be or not.

        An answer closes the breaker.
        """
        try:
            parse = partial(parse_reply, count=0)
            reply = await self._ask(BATCH_PATH, batch_question([]), parse, tls=tls, until=until)
        except (PolicyUnavailable, PolicyFailed) as error:
            return error
        self.breaker.close()
        return reply

    async def _ask(
        self, path: str, question: bytes, parse: Callable[[int, bytes], T], *, tls: ClientTls, until: float
    ) -> T:
        try:
            async with asyncio.timeout_at(until), self.sessions.lend(tls) as session:
                status, body = await post(session, path, question, kept=self._connections, where=self.url)
        except TimeoutError:
            raise PolicyUnavailable(f"OPA at {self.url} did not answer in time") from None
        try:
            return parse(status, body)
        except NoPolicy as error:
            raise NoPolicy(f"{self.url}: {error.detail}") from error
        except PolicyUnavailable as error:
            raise PolicyUnavailable(f"{self.url}: {error.detail}") from error


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ConfigurationError(f"policy.opa {url!r} is not a URL: {error}") from error
    if not usable or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(f"policy.opa {url!r} is not https://HOST:PORT")
    return url.rstrip("/")
