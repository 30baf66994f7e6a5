"""Connections to one OPA over mutual TLS, which follow the rotation of our X.509-SVID.

This module does not know SPIFFE: a `TlsSource` gives TLS contexts that authenticate us and check the server.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.policies.opa.http import open_session


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """A client's TLS context. Connections made with it must end by `ends`, by the event loop's clock."""

    context: ssl.SSLContext
    ends: float


class TlsSource(Protocol):
    """The source of TLS contexts."""

    def current(self) -> ClientTls:
        """Return the context for new connections: the same object until there is a newer certificate.

        It presents our X.509-SVID, and its handshake succeeds only with the expected server. Raises `IdentityUnavailable`
        without a usable certificate, `ConfigurationError` without the bundle of the server's trust domain.
        """


class SvidSessions:
    """Lends HTTP sessions to the OPA at `base_url`; its `run` must run as long as they are used."""

    def __init__(self, base_url: str, *, connections: int) -> None:
        self._base_url: Final = base_url
        self._connections: Final = connections
        self._pools: list[_Pool] = []
        self._changed: Final = asyncio.Event()
        self._closed = False

    @asynccontextmanager
    async def lend(self, tls: ClientTls) -> AsyncGenerator[aiohttp.ClientSession, None]:
        """Lend the session whose connections are made with `tls`; those of another are closed once unused.

        Raises `PolicyUnavailable` once `run` has ended.
        """
        if self._closed:
            raise PolicyUnavailable("the engine was left")
        if not self._pools or self._pools[-1].tls is not tls:
            self._pools.append(_Pool(self._base_url, tls, self._connections))
            self._changed.set()
        pool = self._pools[-1]
        pool.users += 1
        try:
            yield pool.session
        finally:
            pool.users -= 1
            if not pool.users and self._pools[-1:] != [pool]:
                self._changed.set()

    async def run(self) -> None:
        """Close connections of former certificates once unused, and all at the end of their certificate.

        Runs until cancelled, then closes the rest.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._changed.clear()
                now = loop.time()
                for pool in tuple(self._pools):
                    if now >= pool.tls.ends or (not pool.users and pool is not self._pools[-1]):
                        self._pools.remove(pool)
                        await pool.session.close()
                await self._change(min((pool.tls.ends for pool in self._pools), default=None))
        finally:
            self._closed = True
            for pool in self._pools:
                await pool.session.close()
            self._pools.clear()

    async def _change(self, until: float | None) -> None:
        """Wait until there may be something to close, at most until `until`."""
        try:
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        except TimeoutError:
            return


class _Pool:
    """The connections made with one certificate, and how many questions use them."""

    def __init__(self, base_url: str, tls: ClientTls, connections: int) -> None:
        self.tls: Final = tls
        self.users = 0
        self.session: Final = open_session(base_url, aiohttp.TCPConnector(ssl=tls.context, limit=connections))
