"""The options of a connection: its name, an nkey login, and its waits."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class NkeyLogin:
    """A user's public nkey (`U...`) and its signing function: bytes in, the 64 bytes of an Ed25519 signature out."""

    public: str
    sign: Callable[[bytes], bytes] = field(repr=False)

    def signature(self, nonce: str) -> bytes:
        """Return `sig` for CONNECT: the signature over the server's nonce, in base64."""
        return base64.b64encode(self.sign(nonce.encode()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """Options of a connection. All waits are seconds."""

    name: str = ""
    """Shown by the server's monitoring and by the metric `sealbus_bus_connected`."""
    login: NkeyLogin | None = None
    """For a server that needs more than the client certificate."""
    connect: float = 10.0
    """For TCP and TLS of one attempt, of which a crowd may make thousands at once."""
    admission: float = 13.0
    """For the answer to CONNECT. A server asks its auth callout first, which a crowd may keep busy, and then says why it lets
    nobody in: this is longer than `authorization.timeout` in deploy/local/nats/nats.conf."""
    ping: float = 3.0
    """Between PINGs. A server that leaves two unanswered counts as gone."""
    backoff: Backoff = Backoff(initial_interval=0.05, maximum_interval=5.0, jitter=0.5)
    """Between attempts."""
    overlap: float = 0.25
    """How long both connections stay subscribed, so that the new subscriptions reach the whole cluster."""
    settle: float = 10.0
    """How long the old connection is kept for outstanding PubAcks and deliveries."""
    jitter: float = 1.0
    """A rotation starts after a random delay up to this: a new bundle reaches every workload at once."""
    margin: float = 1.0
    """A connection ends this long before its client certificate's `notAfter`."""

    def __post_init__(self) -> None:
        for name in ("connect", "admission", "ping", "overlap", "settle", "jitter", "margin"):
            if not 0 <= getattr(self, name) <= 3600:
                raise ConfigurationError(f"connection option {name}: must be between 0 and 3600 seconds")
