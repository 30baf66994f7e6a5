"""The role `policy` of `sealbus control`: follows the store, composes and signs the policy, and serves it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from sealbus.agents.control.control import CONTROL
from sealbus.agents.control.policy_server.app import PolicyApplication, Served
from sealbus.agents.edge.http.peer import PeerProtocol
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.agents.edge.http.tls import svid_context
from sealbus.agents.runtime.open import open_connection
from sealbus.agents.runtime.policy.source import open_sync
from sealbus.agents.runtime.policy.sync import PolicySync
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import Clock, Identity
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import SigningKey, read_signing_key
from sealbus.policies.opa.compiler import find_opa, opa_check

__all__ = ["PolicyServer", "open_policy_role", "open_policy_server"]

_log: Final = logging.getLogger(__name__)

CACHE: Final = "policy-server"
"""The policy server's folder within `policy.cache`."""


class PolicyServer:
    """The server of the newest policy. Any number may run at a time: all serve the same content."""

    def __init__(
        self,
        sync: PolicySync,
        key: SigningKey,
        *,
        address: str,
        identity: Identity,
        counters: Counters | None = None,
        limits: ConnectionLimits | None = None,
        clock: Clock = wall_clock,
    ) -> None:
        self.served = Served(key)
        self.listening = asyncio.Event()
        self.port = 0
        """The port that it listens on, once `listening` is set."""
        self._sync = sync
        self._address = address
        self._limits = limits or ConnectionLimits()
        self._counters = counters or Counters()
        self._application = PolicyApplication(self.served, counters=self._counters, clock=clock)
        self._trust_domain = identity.spiffe_id.trust_domain
        self._tls: ssl.SSLContext = svid_context(identity, self._trust_domain)

    @property
    def problem(self) -> str:
        """The reason why a part's newest version is not served, or the store is not read; empty if all is well."""
        return self._sync.problem

    async def run(self) -> None:
        """Listen and serve the newest policy until cancelled; `sync` is already entered. Raises `ConfigurationError`."""
        async with (
            self._sync.in_force.taken(self.served.put),
            listening(
                self._application,
                self._address,
                setting="policy.serve",
                limits=self._limits,
                counters=self._counters,
                tls=self._tls,
                protocol=partial(PeerProtocol, trust_domain=self._trust_domain),
            ) as port,
        ):
            self.port = port
            self.listening.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                # Otherwise shutdown would wait for long polls.
                self.served.stop()
                self.listening.clear()


@asynccontextmanager
async def open_policy_server(
    settings: Settings, identity: Identity, connection: Connection, *, counters: Counters | None = None
) -> AsyncGenerator[PolicyServer, None]:
    """Return the policy server of the settings, on the identity and connection of `sealbus control`; then `run` it.

    If there is an `opa` (SEALBUS_OPA, or on PATH), it must be able to compile what is served. Raises `ConfigurationError`,
    one line that names the setting, for what is missing, and before the first push.
    """
    policy = settings.policy
    if policy.serve is None or policy.serve_key is None:
        raise ConfigurationError("policy.serve (where to listen) and policy.serve_key (the key for OPA) are not set")
    key = await asyncio.to_thread(_read_key, policy.serve_key)
    opa = find_opa()
    if opa is None:
        _log.warning("opa was not found: what only its own compiler refuses is served, and then refused by every OPA")
    check = partial(opa_check, opa=opa) if opa is not None else None
    async with open_sync(CACHE, policy, connection, counters=counters, check=check) as sync:
        yield PolicyServer(sync, key, address=policy.serve, identity=identity, counters=counters)


def _read_key(file: Path) -> SigningKey:
    try:
        pem = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"policy.serve_key: {file} cannot be read: {error.strerror}") from error
    return read_signing_key(pem, name=f"policy.serve_key: {file}")


@asynccontextmanager
async def open_policy_role(settings: Settings, *, counters: Counters) -> AsyncGenerator[PolicyServer, None]:
    """Open identity, connection and the bucket. Raises `SealbusError` for what is missing, or before the first push."""
    async with (
        open_connection(CONTROL, settings, counters=counters) as (identity, connection),
        open_policy_server(settings, identity, connection, counters=counters) as server,
    ):
        yield server
