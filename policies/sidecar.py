"""The sidecar engine: a real OPA on a unix socket beside the worker, asked over HTTP about many documents at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.policies.decision import parse_decision
from sealbus.policies.documents import InputDocument, checked_document
from sealbus.policies.engine import Answer, EngineStatus
from sealbus.policies.opa_wire import BATCH_PATH, QUERY, Reply, batch_question, parse_reply

__all__ = ["BATCH", "IN_FLIGHT", "REPLY_BYTES", "SidecarEngine"]

BATCH: Final = 50
"""Documents of one question: OPA evaluates a question on one core, and its own share of a call is small by then."""
IN_FLIGHT: Final = 2
"""Connections, so questions under way at a time; more wait here, where the deadline sees them, and not inside OPA."""
REPLY_BYTES: Final = 1_048_576
DEADLINE: Final = 1.0
SOCKET_PATH_BYTES: Final = 107
"""What a unix socket's address holds on Linux, without its closing zero."""


class SidecarEngine:
    """Decides by asking the OPA that listens on the unix socket `socket`.

    `deadline` is in seconds and for one call of `decide`: what has no answer by then is `PolicyUnavailable`. Documents
    are asked about in questions of at most 50, two at a time; each question is decided under one revision. A question
    that OPA could not evaluate is asked again in halves, down to the one document that fails alone. OPA need not be
    there when the engine is entered.
    """

    def __init__(self, socket: Path, *, deadline: float = DEADLINE) -> None:
        if len(str(socket).encode()) > SOCKET_PATH_BYTES:
            raise ConfigurationError(
                f"{socket} is over {SOCKET_PATH_BYTES} bytes: choose a shorter path for OPA's socket"
            )
        self._socket = socket
        self._deadline = deadline
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """The engine's name in decisions."""
        return "sidecar"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            base_url="http://opa",
            connector=aiohttp.UnixConnector(path=str(self._socket), limit=IN_FLIGHT),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),  # each question has the deadline of its call
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Answer]:
        """Return one answer for each input document, in order."""
        until = asyncio.get_running_loop().time() + self._deadline
        answers: dict[int, Answer] = {}
        asking: list[tuple[int, InputDocument]] = []
        for number, document in enumerate(inputs):
            try:
                checked = document if isinstance(document, InputDocument) else checked_document(document)
            except PolicyFailed as error:
                answers[number] = error
            else:
                asking.append((number, checked))
        parts = [asking[start : start + BATCH] for start in range(0, len(asking), BATCH)]
        if len(parts) == 1:
            await self._decide(parts[0], answers, until)
        else:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(self._decide(part, answers, until))
        return [answers[number] for number in range(len(inputs))]

    async def status(self) -> EngineStatus:
        """Ask OPA about nothing, and return the revision that answers."""
        until = asyncio.get_running_loop().time() + self._deadline
        try:
            reply = await self._ask([], until)
        except (PolicyUnavailable, PolicyFailed) as error:
            return EngineStatus(engine=self.name, revision="", problem=error.detail)
        return EngineStatus(engine=self.name, revision=reply.revision)

    async def _decide(
        self, asking: Sequence[tuple[int, InputDocument]], answers: dict[int, Answer], until: float
    ) -> None:
        """Put an answer for each of `asking` into `answers`."""
        documents = [document for _, document in asking]
        started = time.perf_counter_ns()
        try:
            reply = await self._ask(documents, until)
        except PolicyUnavailable as error:
            for number, _ in asking:
                answers[number] = PolicyUnavailable(error.detail)
        except PolicyFailed as error:
            if len(asking) == 1:
                answers[asking[0][0]] = error
            else:
                half = len(asking) // 2
                await self._decide(asking[:half], answers, until)
                await self._decide(asking[half:], answers, until)
        else:
            micros = (time.perf_counter_ns() - started) // (1_000 * max(len(asking), 1))
            for (number, _), value in zip(asking, reply.values, strict=True):
                try:
                    answers[number] = parse_decision(value, revision=reply.revision, engine=self.name, micros=micros)
                except PolicyFailed as error:
                    answers[number] = error

    async def _ask(self, documents: Sequence[InputDocument], until: float) -> Reply:
        try:
            async with asyncio.timeout_at(until):
                status, body = await self._post(batch_question(documents))
        except TimeoutError:
            raise PolicyUnavailable(f"OPA did not answer within {self._deadline:g} s") from None
        return parse_reply(status, body, len(documents))

    async def _post(self, question: bytes) -> tuple[int, bytes]:
        """Return status and body; ask again where a connection was closed that was kept from before OPA was restarted.

        There may be as many of those as there are connections. A question changes nothing, so that asking twice is safe.
        """
        session = self._session
        if session is None:
            raise PolicyUnavailable("the engine is not entered")
        left = IN_FLIGHT
        while True:
            try:
                return await self._exchange(session, question)
            except aiohttp.ClientError as error:
                kept = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
                if not left or not kept or isinstance(error, aiohttp.ClientConnectorError):
                    text = f"OPA at {self._socket} does not answer: {type(error).__name__}"
                    raise PolicyUnavailable(text) from error
                left -= 1

    async def _exchange(self, session: aiohttp.ClientSession, question: bytes) -> tuple[int, bytes]:
        async with session.post(
            BATCH_PATH,
            params=QUERY,
            data=question,
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            allow_redirects=False,
        ) as response:
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > REPLY_BYTES:
                    response.close()
                    raise PolicyUnavailable(f"OPA's answer has over {REPLY_BYTES} bytes")
            return response.status, body
