"""The sidecar engine asks an OPA on a unix socket next to the worker, over HTTP, about many documents at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import aiohttp

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.policies.decision.engine import EngineStatus
from sealbus.policies.opa.batches import DEADLINE, AskingEngine, ask_batch
from sealbus.policies.opa.http import open_session, post

IN_FLIGHT: Final = 2
"""Connections, and so questions in flight. Other questions wait here, where the deadline applies, not inside OPA."""
SOCKET_PATH_BYTES: Final = 107
"""Length of a unix socket's address on Linux, without its closing zero."""

T = TypeVar("T")


class SidecarEngine(AskingEngine):
    """Decides by asking the OPA that listens on the unix socket `socket`.

    `deadline` is in seconds, for one call of `decide`: documents without an answer by then are `PolicyUnavailable`.
    A question has at most 50 documents, and two are asked at a time. Each question is decided under one revision. A question
    that OPA could not evaluate is asked again in halves, down to the one document that fails alone. OPA need not be up when
    the engine is entered.
    """

    def __init__(self, socket: Path, *, deadline: float = DEADLINE) -> None:
        if len(str(socket).encode()) > SOCKET_PATH_BYTES:
            raise ConfigurationError(
                f"{socket} is over {SOCKET_PATH_BYTES} bytes: choose a shorter path for OPA's socket"
            )
        super().__init__(deadline)
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """The engine's name in decisions."""
        return "sidecar"

    async def __aenter__(self) -> Self:
        self._session = open_session("http://opa", aiohttp.UnixConnector(path=str(self._socket), limit=IN_FLIGHT))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def status(self) -> EngineStatus:
        """Ask OPA an empty question, and return the revision that answers."""
        try:
            reply = await ask_batch([], self.ask, until=self._until())
        except (PolicyUnavailable, PolicyFailed) as error:
            return EngineStatus(engine=self.name, revision="", problem=error.detail)
        return EngineStatus(engine=self.name, revision=reply.revision)

    async def ask(self, path: str, question: bytes, parse: Callable[[int, bytes], T], *, until: float) -> T:
        """Ask OPA one question, as `Ask` defines."""
        session = self._session
        if session is None:
            raise PolicyUnavailable("the engine is not entered")
        try:
            async with asyncio.timeout_at(until):
                status, body = await post(session, path, question, connections=IN_FLIGHT, where=str(self._socket))
        except TimeoutError:
            raise PolicyUnavailable(f"OPA did not answer within {self._deadline:g} s") from None
        return parse(status, body)
