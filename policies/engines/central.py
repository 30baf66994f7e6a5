"""The central engine asks remote OPAs over mutual TLS. The first healthy OPA decides.

There is no cache of decisions. A correct key needs the revision and everything that the policy reads: the whole input
document. This has a time and an id, so no key would occur twice. A smaller key assumes that the policy does not read the
other members, but a new policy may read them at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable, PolicyFailed, PolicyUnavailable
from sealbus.policies.decision.engine import EngineStatus
from sealbus.policies.engines.circuit_breaker import Breaker, Passage
from sealbus.policies.engines.svid_sessions import ClientTls, SvidSessions, TlsSource
from sealbus.policies.entered import Entered
from sealbus.policies.opa.batches import DEADLINE, AskingEngine
from sealbus.policies.opa.http import post
from sealbus.policies.opa.wire import BATCH_PATH, NoPolicy, Reply, batch_question, parse_reply

IN_FLIGHT: Final = 4
"""Questions in flight at a time, to all servers together. Other questions wait here, where the deadline applies."""
URLS: Final = 8

T = TypeVar("T")


class CentralEngine(AskingEngine, Entered):
    """Decides by asking the OPAs at the https `urls`. `tls` makes the connections, and defines the servers that may answer.

    The first healthy server is asked, so decisions keep to one revision while a new one spreads. A server that fails three
    questions in a row is not asked for 0.2 s, and later for up to 10 s; then it gets one question as a trial. If a server
    fails, the question goes to the next one. Each server gets its share of the remaining time.

    `deadline` is in seconds, for one whole call of `decide`. Documents without an answer by then are `PolicyUnavailable`. If
    no server may be asked, they are so at once. A question has at most 50 documents, and four are asked at a time. Each
    question is decided by one server under one revision. No OPA needs to be up when the engine is entered. Construction
    raises `ConfigurationError` for no URL, over 8 URLs, or a URL that is not https.
    """

    def __init__(self, urls: Sequence[str], *, tls: TlsSource, deadline: float = DEADLINE) -> None:
        super().__init__(deadline)
        self._servers: Final = tuple(CentralServer(url, connections=IN_FLIGHT) for url in urls)
        if not 0 < len({server.url for server in self._servers}) == len(urls) <= URLS:
            raise ConfigurationError(f"policy.opa: the central engine asks at 1 to {URLS} different URLs")
        self._tls: Final = tls
        self._turns: Final = asyncio.Semaphore(IN_FLIGHT)

    @property
    def name(self) -> str:
        """The engine's name in decisions."""
        return "central"

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        async with asyncio.TaskGroup() as group:
            keeping = [group.create_task(server.sessions.run(), name="svid-sessions") for server in self._servers]
            yield
            for task in keeping:
                task.cancel()

    async def status(self) -> EngineStatus:
        """Ask every server an empty question, even with an open circuit, and return the status of the one that decides.

        `missed` names the servers that do not answer, and those that decide by another revision. An answer closes the
        server's circuit.
        """
        until = self._until()
        try:
            tls = self._current()
        except PolicyUnavailable as error:
            return EngineStatus(engine=self.name, revision="", problem=error.detail)
        async with asyncio.TaskGroup() as group:
            looking = [group.create_task(server.look(tls=tls, until=until)) for server in self._servers]
        replies = [task.result() for task in looking]
        revision = next((reply.revision for reply in replies if isinstance(reply, Reply)), "")
        missed = []
        for server, reply in zip(self._servers, replies, strict=True):
            if not isinstance(reply, Reply):
                missed.append(reply.detail)
            elif reply.revision != revision:
                missed.append(f"{server.url} decides by revision {reply.revision}, not {revision}")
        if not revision:
            return EngineStatus(engine=self.name, revision="", problem="; ".join(missed))
        return EngineStatus(engine=self.name, revision=revision, missed=tuple(missed))

    async def ask(self, path: str, question: bytes, parse: Callable[[int, bytes], T], *, until: float) -> T:
        """Ask the first healthy server, then the next, as `Ask` defines."""
        try:
            async with asyncio.timeout_at(until):
                await self._turns.acquire()
        except TimeoutError:
            raise PolicyUnavailable(f"there was no turn to ask OPA within {self._deadline:g} s") from None
        try:
            return await self._ask(path, question, parse, until)
        finally:
            self._turns.release()

    async def _ask(self, path: str, question: bytes, parse: Callable[[int, bytes], T], until: float) -> T:
        loop = asyncio.get_running_loop()
        tls = self._current()
        failed: PolicyUnavailable | NoPolicy | None = None
        for number, server in enumerate(self._servers):
            now = loop.time()
            passage = server.breaker.admit(now)
            if passage is None:
                continue
            share = (until - now) / (len(self._servers) - number)
            # If the remaining time is too short for any server, a missing answer is not a failure of this server.
            counts = share >= self._deadline / (2 * len(self._servers))
            try:
                return await server.ask(
                    path, question, parse, tls=tls, until=now + share, passage=passage, counts=counts
                )
            except (PolicyUnavailable, NoPolicy) as error:
                failed = failed or error
        if failed is not None:
            raise failed
        now = loop.time()
        wait = min(server.breaker.seconds_left(now) for server in self._servers)
        last = "; ".join(server.reason for server in self._servers)
        raise PolicyUnavailable(f"the circuit is open, no OPA is asked for {wait:.1f} s: {last}")

    def _current(self) -> ClientTls:
        if self._running is None:
            raise PolicyUnavailable("the engine is not entered")
        try:
            return self._tls.current()
        except (IdentityUnavailable, ConfigurationError) as error:
            raise PolicyUnavailable(f"OPA cannot be asked: {error.detail}") from error


class CentralServer:
    """The OPA at `url`, asked over at most `connections` connections while `sessions.run()` runs.

    Raises `ConfigurationError` unless `url` is exactly https://HOST or https://HOST:PORT.
    """

    def __init__(self, url: str, *, connections: int) -> None:
        self.url: Final = _checked(url)
        self.sessions: Final = SvidSessions(self.url, connections=connections)
        self.breaker: Final = Breaker()
        self.reason = ""
        """The reason for the server's last missing answer."""
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
        """Ask one question by `passage`; a missing answer fails the passage if `counts`.

        Raises `PolicyUnavailable` if there is no answer by `until`, and what `parse` raises. An evaluation error is no
        failure of the server; a missing policy is.
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
        """Ask an empty question, even with an open breaker, and return the answer, which closes the breaker."""
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
                status, body = await post(session, path, question, connections=self._connections, where=self.url)
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
    if not usable or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(f"policy.opa {url!r} is not https://HOST:PORT")
    return url.rstrip("/")
