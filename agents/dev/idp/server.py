"""The development IdP as a server: on loopback or not at all, started and stopped with `async with`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import uvicorn
from uvicorn.server import ServerState

from sealbus.agents.dev.idp.access import ScriptAccess, write_access
from sealbus.agents.dev.idp.clients import DEMO_CLIENTS, DevClient
from sealbus.agents.dev.idp.oauth import TOKEN_SECONDS, OAuthServer
from sealbus.agents.dev.idp.routes import ISSUER_PATH, application
from sealbus.agents.dev.idp.users import DEMO_USERS, DemoUser
from sealbus.agents.edge.protocol import ConnectionLimits, EdgeProtocol
from sealbus.bus.clock import Clock, wall_clock
from sealbus.envelopes.errors import ConfigurationError

__all__ = ["DevelopmentIdp"]

READY_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0
_LIMITS: Final = ConnectionLimits(connections=64, head_bytes=16_384)

_FAMILIES: Final = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}


class DevelopmentIdp:
    """Serve logins of `users` to `clients`; tokens are for `audience` unless a request names a resource.

    `host` must be 127.0.0.1 or ::1, or the constructor raises `ConfigurationError`: whoever reaches this server can be
    anybody. `port` 0 is any free one. `access` is a file for `sealbus token`: written when it runs, removed at the end.
    The signing key is made at each start and lives in memory only.
    """

    def __init__(
        self,
        *,
        audience: str,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Iterable[DemoUser] = DEMO_USERS,
        clients: Iterable[DevClient] = DEMO_CLIENTS,
        access: Path | None = None,
        clock: Clock = wall_clock,
    ) -> None:
        if host not in _FAMILIES:
            raise ConfigurationError(
                f"the development IdP does not listen on {host!r}: it asks for no passwords, so 127.0.0.1 or ::1 only"
            )
        self._audience = audience
        self._host = host
        self._port = port
        self._users = tuple(users)
        self._clients = tuple(clients)
        self._access = access
        self._clock = clock
        self._secret = secrets.token_urlsafe(32)
        self._oauth: OAuthServer | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def origin(self) -> str:
        """`http://host:port`, once entered."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    @property
    def issuer(self) -> str:
        """The issuer of its tokens, once entered; it says that it is for development only."""
        return f"{self.origin}{ISSUER_PATH}"

    @property
    def jwks_uri(self) -> str:
        """Where its public key is."""
        return f"{self.issuer}/jwks"

    @property
    def access(self) -> ScriptAccess:
        """What `sealbus token` needs; whoever has it can be any user."""
        return ScriptAccess(issuer=self.issuer, secret=self._secret)

    def token(
        self,
        user: str,
        *,
        client: str = "dev",
        scope: str = "",
        audience: str = "",
        session: str = "",
        expires_in: int = TOKEN_SECONDS,
    ) -> str:
        """Return an access token of a demo user as a login would give it; expired already if `expires_in` is below 0."""
        if self._oauth is None:
            raise RuntimeError("the development IdP does not run")
        if user not in self._oauth.users:
            raise ConfigurationError(f"there is no demo user {user!r}")
        login = self._oauth.login(
            self._oauth.users[user],
            client_id=client,
            scope=scope,
            audience=audience,
            session=session,
            expires_in=expires_in,
        )
        return self._oauth.signer.access_token(login)

    async def __aenter__(self) -> Self:
        """Start and return when it answers. Raises `ConfigurationError`, one line, if the port cannot be used."""
        listening = self._bind()
        try:
            self._oauth = OAuthServer(
                self.issuer,
                audience=self._audience,
                users=self._users,
                clients=self._clients,
                secret=self._secret,
                clock=self._clock,
            )
            await self._serve(_Server(self._config(self._oauth)), listening)
            if self._access is not None:
                write_access(self._access, self.access)
        except BaseException:
            await self._stop()
            listening.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _serve(self, server: _Server, listening: socket.socket) -> None:
        self._server = server
        self._serving = asyncio.create_task(server.serve([listening]), name="development-idp")
        started = asyncio.create_task(server.ready.wait())
        try:
            await asyncio.wait({started, self._serving}, timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if not server.ready.is_set():
            raise ConfigurationError(f"the development IdP was not ready in {READY_SECONDS:g} s")

    def _bind(self) -> socket.socket:
        # Named as TCP, or asyncio would leave Nagle's algorithm on.
        listening = socket.socket(_FAMILIES[self._host], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, self._port))
        except (OSError, OverflowError) as error:
            listening.close()
            why = getattr(error, "strerror", None) or "not a port"
            raise ConfigurationError(
                f"port {self._port} of {self._host} cannot be used by the development IdP: {why}; choose another, or 0"
            ) from error
        self._port = listening.getsockname()[1]
        return listening

    def _config(self, oauth: OAuthServer) -> uvicorn.Config:
        origins = frozenset({self.origin, f"http://localhost:{self._port}"})
        return uvicorn.Config(
            application(oauth, origins),
            log_config=None,
            access_log=False,
            http=_QuietProtocol,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )

    async def _stop(self) -> None:
        if self._access is not None:
            self._access.unlink(missing_ok=True)
        self._oauth = None
        serving, self._serving = self._serving, None
        if serving is None or self._server is None:
            return
        self._server.stopping.set()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await serving
        except TimeoutError:
            # The wait was cancelled, and the task with it.
            pass


class _QuietProtocol(EdgeProtocol):
    """The edge's HTTP/1.1, with its deadlines, and without a line for each request: queries hold codes."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        del app_state, _loop
        super().__init__(config, server_state, _LIMITS)
        self.access_log = False


class _Server(uvicorn.Server):
    """A server that says when it listens, and leaves the process's signals to the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        # uvicorn's own looks ten times a second whether it is to stop, to set the Date header in between.
        await self.stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
