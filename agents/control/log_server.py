"""The role `log` of `sealbus control`: serves the folder of a log, or of a copy of it, to any client of C2SP tlog-tiles.

It reads the folder only. A tile is served if the checkpoint in the folder covers it: until then it may still become another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, COSIGNED, FolderStore
from sealbus.agents.edge.http.application import Application, Methods
from sealbus.agents.edge.http.problem import HEADERS, EdgeError, problem_of
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.rate_limits import TokenBuckets
from sealbus.agents.edge.http.server import listening
from sealbus.agents.edge.http.tls import listener_tls
from sealbus.agents.identity.threads import in_thread
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code, ConfigurationError, LogError, SealbusError, StateUnavailable
from sealbus.envelopes.log.checkpoint import read_lines
from sealbus.envelopes.log.note import parse_note
from sealbus.envelopes.log.tiles import TILE_HEIGHT, TILE_WIDTH, TileName, tile_reader

_logger: Final = logging.getLogger(__name__)

NOTE_HEADERS: Final = {**HEADERS, "cache-control": "no-cache"}
TILE_HEADERS: Final = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"


class LogRoutes:
    """The resources of the log in `store`. Entries and places are served if `entries` is set."""

    def __init__(self, store: FolderStore, *, entries: bool) -> None:
        self._store = store
        self._entries = entries
        self._damage: dict[str, str] = {}
        """The path of the file that was damaged when it was last asked for, if there is one, and what was wrong."""

    @property
    def problem(self) -> str:
        """Why the log could not be served when it was last asked for; empty if it could."""
        return next(iter(self._damage.values()), "")

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the server."""
        return [
            Route(f"/{CHECKPOINT}", Methods(GET=self.note)),
            Route(f"/{COSIGNED}", Methods(GET=self.note)),
            Route("/tile/{name:path}", Methods(GET=self.tile)),
        ]

    async def note(self, request: Request) -> Response:
        """Return the checkpoint, or the last one with a quorum; 404 before the first."""
        path = request.url.path.removeprefix("/")
        return Response(await self._read(path, lambda: self._note(path)), 200, NOTE_HEADERS, _TEXT)

    async def tile(self, request: Request) -> Response:
        """Return a tile that the checkpoint covers. 404 for others, and 403 for entries that are not served."""
        try:
            name = TileName.parse(f"tile/{request.path_params['name']}")
        except LogError as error:
            raise EdgeError(Code.NOT_FOUND, 404, "not the path of a tile") from error
        if not isinstance(name.level, int) and not self._entries:
            raise EdgeError(Code.DENIED, 403, "This log does not show its entries.")
        return Response(await self._read(name.path, lambda: self._tile(name)), 200, TILE_HEADERS, _BYTES)

    async def _read(self, path: str, read: Callable[[], bytes]) -> bytes:
        try:
            data = await in_thread(read)
        except (LogError, StateUnavailable) as error:
            # A damaged file: nobody who asks for it has caused that.
            self._damage = {path: str(error)}
            _logger.error("the log cannot be served: %s", error)  # noqa: TRY400  the text says all
            raise
        self._damage.pop(path, None)
        return data

    def _note(self, path: str) -> bytes:
        note = self._store.get(path)
        if note is None:
            raise EdgeError(Code.NOT_FOUND, 404, f"The log has no {path} yet.")
        return note

    def _tile(self, name: TileName) -> bytes:
        _, size, _ = read_lines(parse_note(self._note(CHECKPOINT)).text)
        if not name.is_of(size):
            raise EdgeError(Code.NOT_FOUND, 404, f"The checkpoint is at {size}, and does not cover this tile.")
        data = self._stored(name, size)
        if len(data) != name.bytes:
            raise LogError(Code.BAD_TILE, f"{name.path} has {len(data)} bytes")
        return data

    def _stored(self, name: TileName, size: int) -> bytes:
        try:
            return tile_reader(self._store.get)(name)
        except LogError as error:
            level = name.level if isinstance(name.level, int) else 0
            if name.width in (TILE_WIDTH, (size >> (TILE_HEIGHT * level)) % TILE_WIDTH):
                raise
            # Anybody may ask for a width that no checkpoint had: only those of the present one have to be there.
            raise EdgeError(Code.NOT_FOUND, 404, "No checkpoint has this partial tile now.") from error


class LogServer:
    """A log that is served on `port`."""

    def __init__(self, routes: LogRoutes, port: int) -> None:
        self.port = port
        self._routes = routes

    @property
    def problem(self) -> str:
        """Why the log could not be served when it was last asked for; empty if it could."""
        return self._routes.problem

    async def run(self) -> None:
        """Wait to be cancelled: requests are answered as long as the role is open."""
        await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def open_log_server(settings: Settings, *, counters: Counters) -> AsyncGenerator[LogServer, None]:
    """Serve the log of the settings while entered. Raises `ConfigurationError` for a missing or unusable setting."""
    table = settings.control.log
    folder = table.folder or settings.control.notary.folder
    if folder is None:
        raise ConfigurationError("control.log.folder is not set: the folder of a notary, or a copy of one")
    routes = LogRoutes(FolderStore(folder), entries=table.entries)
    tls = listener_tls("control.log", table, counters=counters)
    application = Application(
        routes.routes(),
        answer_of=_answer,
        addresses=TokenBuckets(rate=table.rate, burst=max(1, round(2 * table.rate)), entries=4_096),
        secure=tls is not None,
        counters=counters,
    )
    async with listening(
        application,
        table.address,
        setting="control.log.address",
        limits=ConnectionLimits(),
        counters=counters,
        tls=tls,
    ) as port:
        yield LogServer(routes, port)


def _answer(error: SealbusError, scope: Scope) -> Response:
    del scope
    return problem_of(error)
