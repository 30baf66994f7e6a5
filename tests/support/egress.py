"""The way out in tests: an API on loopback that answers as a test says, and the exit that calls it, on a bus in memory."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from types import TracebackType
from typing import Any, Self

from support.engines import ScriptedEngine
from support.issuer import TRUSTS_NOBODY

from sealbus import Agent
from sealbus.agents.edge.egress.api import Api
from sealbus.agents.edge.egress.credential import Credential
from sealbus.agents.edge.egress.exit import exit_agent
from sealbus.agents.edge.egress.operation import Operation
from sealbus.agents.edge.http.reachable import Resolve
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.envelopes.message.user_context import UserContext
from sealbus.testing import TestBus

__all__ = ["LOOPBACK", "SECRET", "Asked", "FixedSecret", "ScriptedApi", "WayOut", "answered", "api_of", "way_out"]

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SECRET = "a-secret-that-agents-never-see"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as the API got it; names of fields are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


def answered(status: int = 200, body: bytes = b"{}", *fields: tuple[str, str]) -> bytes:
    """Return the bytes of an answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ScriptedApi:
    """An API on a free port of 127.0.0.1, started by `async with`; `answer` gives the bytes that it sends."""

    def __init__(
        self,
        answer: Callable[[Asked], bytes | Awaitable[bytes]] = lambda _: answered(),
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self._tls = tls
        self.asked: list[Asked] = []
        self.connections = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.url = (
            f"{'http' if self._tls is None else 'https'}://localhost:{self._server.sockets[0].getsockname()[1]}/api"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                    method, target, _ = head[0].split(" ")
                    fields = {name.lower(): value for name, value in (one.split(": ", 1) for one in head[1:] if one)}
                    body = await reader.readexactly(int(fields.get("content-length", 0)))
                    asked = Asked(method=method, target=target, headers=fields, body=body)
                    self.asked.append(asked)
                    said = self.answer(asked)
                    writer.write(said if isinstance(said, bytes) else await said)
                    await writer.drain()
        finally:
            writer.close()


@dataclass
class FixedSecret:
    """A credential that is always the same, and says whom it was for."""

    secret_text: str = SECRET
    users: list[UserContext | None] = field(default_factory=list)
    renewed: Sequence[str] = ()

    async def secret(self, user: UserContext | None) -> str:
        self.users.append(user)
        return self.secret_text

    def fields(self, secret: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret}"}

    def forget(self, user: UserContext | None, secret: str) -> bool:
        if not self.renewed:
            return False
        self.secret_text, *self.renewed = self.renewed
        return True

    async def close(self) -> None:
        return


def api_of(url: str, *operations: str, name: str = "crm", credential: Credential | None = None, **changes: Any) -> Api:
    """Return the API at `url` with `operations`, by default two about customers."""
    said = operations or ("GET /customers/{customer}", "POST /customers/{customer}/notes")
    fields = {
        "operations": tuple(map(Operation.parse, said)),
        "tls": TRUSTS_NOBODY,
        "networks": LOOPBACK,
        **changes,
    }
    return Api(name=name, url=url, credential=credential or FixedSecret(), **fields)


@dataclass(kw_only=True)
class WayOut:
    """What a test of the exit holds: the bus with the exit on it, and a client of its actions."""

    bus: TestBus
    engine: ScriptedEngine

    async def ask(self, path: str, *, user: str = "alice", action: str = "exit.crm", **request: Any) -> ApiAnswer:
        """Call `action` as the backend `shop-web` on behalf of `user`."""
        client = await self.bus.client("shop-web")
        said = ApiRequest(**{"method": "GET", "path": path, **request})
        return await client.call(action, said, returns=ApiAnswer, user=self.bus.user(user, "shop-web"))


@asynccontextmanager
async def way_out(
    *apis: Api, engine: ScriptedEngine | None = None, agents: Sequence[Agent] = (), resolving: Resolve | None = None
) -> AsyncIterator[WayOut]:
    """Run the exit with `apis`, and `agents` that may use it, on a bus in memory."""
    engine = engine or ScriptedEngine()
    async with TestBus(exit_agent("exit", apis, resolving=resolving), *agents, engine=engine) as bus:
        yield WayOut(bus=bus, engine=engine)
