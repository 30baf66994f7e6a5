"""The configuration of the embedded nats-server: mutual TLS, users by SPIFFE ID, JetStream on disk (pure).

Written as JSON, which nats-server reads as it is, so that no path or name can break out of its quotes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealbus.agents.dev.permissions import Permissions
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.spiffe_id import SpiffeId

__all__ = ["BrokerUser", "NatsConfig"]

_CONTROL: Final = frozenset(chr(code) for code in (*range(32), 127))
_HANDSHAKE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUser:
    """One workload that may connect, by the SPIFFE ID in its client certificate."""

    spiffe_id: SpiffeId
    permissions: Permissions


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """Everything that the embedded server is told. All paths are absolute; `port` -1 lets the server choose.

    `bundle` must hold the CAs of one trust domain only: nats-server maps a certificate of any of its CAs to a user by
    the SPIFFE ID alone, and does not ask which CA may vouch for which trust domain.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    bundle: Path
    store: Path
    users: tuple[BrokerUser, ...]
    max_store_bytes: int
    sync: bool = True
    """Whether a write is on the disk before it is acknowledged. Otherwise the server syncs every two minutes, and a power
    failure takes what was acknowledged since."""
    server_name: str = "sealbus-dev"
    max_payload: int = DEFAULT_LIMITS.envelope_bytes

    def __post_init__(self) -> None:
        if self.port != -1 and not 1 <= self.port <= 65_535:
            raise ConfigurationError(f"NATS port {self.port}: must be from 1 to 65535, or -1 for any free one")
        for path in (self.certificate, self.key, self.bundle, self.store):
            # The server's parser knows no escapes but those for quotes and backslashes.
            if not path.is_absolute() or _CONTROL & set(str(path)):
                raise ConfigurationError(f"{str(path)!r} cannot stand in the server's configuration")
        ids = [user.spiffe_id for user in self.users]
        if len(set(ids)) != len(ids):
            raise ConfigurationError("two NATS users have one SPIFFE ID")

    def render(self) -> bytes:
        """Return the configuration file. Holds no secret, only the path of the key."""
        document: dict[str, object] = {
            "server_name": self.server_name,
            "listen": f"{self.host}:{self.port}",
            "max_payload": self.max_payload,
            # Its default is over the server's heap; a development server is small.
            "max_connections": 1_024,
            "tls": {
                "cert_file": str(self.certificate),
                "key_file": str(self.key),
                "ca_file": str(self.bundle),
                # The URI SAN of the verified client certificate is the user; a name in CONNECT is ignored.
                "verify_and_map": True,
                "min_version": "1.3",
                # Without it the server speaks in the clear first, and a client can be talked out of TLS.
                "handshake_first": True,
                "timeout": _HANDSHAKE_SECONDS,
            },
            "jetstream": {
                "store_dir": str(self.store),
                "max_file_store": self.max_store_bytes,
                **({"sync_interval": "always"} if self.sync else {}),
            },
            "accounts": {
                "APP": {"jetstream": "enabled", "users": _users(self.users)},
                "SYS": {},
            },
            "system_account": "SYS",
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()


def _users(users: Sequence[BrokerUser]) -> list[object]:
    return [
        {
            "user": str(user.spiffe_id),
            "permissions": {
                "publish": {"allow": list(user.permissions.publish)},
                "subscribe": {"allow": list(user.permissions.subscribe)},
            },
        }
        for user in users
    ]
