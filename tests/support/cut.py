"""A network that can be cut: a TCP proxy on loopback that goes silent, as a cable that is pulled, or refuses."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from support.ports import held_port

__all__ = ["CuttableLink"]

_PIECE = 65_536


class CuttableLink:
    """Passes connections to `port` on loopback on to `target`, while entered, unless it is cut."""

    def __init__(self, target: int) -> None:
        self.port = held_port()
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._drop()

    def cut(self) -> None:
        """Pass nothing on from now on: connections stay open, and neither end is told."""
        self._whole.clear()

    async def mend(self) -> None:
        """Take new connections again. What was open is reset, as by a firewall that has forgotten it."""
        await self._drop()
        self._whole.set()

    async def _drop(self) -> None:
        for one in self._open:
            one.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        ends = [writer]
        try:
            await self._whole.wait()
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(ours)
            # Whichever ends first ends both.
            directions = {
                asyncio.create_task(self._copy(reader, ours)),
                asyncio.create_task(self._copy(theirs, writer)),
            }
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in directions:
                    one.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        except OSError:
            pass
        except asyncio.CancelledError:
            # The server's own task: nobody waits for it but `_drop`.
            pass
        finally:
            self._open.discard(task)
            for end in ends:
                end.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await self._whole.wait()
            writer.write(piece)
            await writer.drain()
