"""Authorization requests as nats-server makes them, good ones and wrong ones, for a responder without a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sealbus.agents.control.callout.nkeys import CurveKey, Prefix, SigningKey, encode_jwt

__all__ = ["AskingServer"]


class AskingServer:
    """A server's keys, and what it asks."""

    def __init__(self) -> None:
        self.key = SigningKey.generate(Prefix.SERVER)
        self.xkey = CurveKey.generate()
        self.user = SigningKey.generate(Prefix.USER).public

    def claims(self, chains: Sequence[Sequence[str]] = (), *, expires: int = 1_700_000_002) -> dict[str, Any]:
        """Return the claims of a request about a client with these certificate chains."""
        return {
            "aud": "nats-authorization-request",
            "sub": self.user,
            "exp": expires,
            "nats": {
                "type": "authorization_request",
                "version": 2,
                "server_id": {"id": self.key.public, "name": "n1", "host": "127.0.0.1", "xkey": self.xkey.public},
                "user_nkey": self.user,
                "client_info": {"kind": "Client", "name": "shop", "host": "127.0.0.1"},
                "connect_opts": {"name": "shop", "pass": "a client's secret"},
                "client_tls": {"version": "1.3", "verified_chains": [list(one) for one in chains]} if chains else {},
            },
        }

    def request(self, claims: dict[str, Any], *, issued: int = 1_700_000_000) -> bytes:
        """Return the request, signed."""
        return encode_jwt(claims, self.key, issued=issued).encode()
