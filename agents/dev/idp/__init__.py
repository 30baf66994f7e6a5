"""The identity provider of `sealbus dev`: real OAuth on loopback, with demo users and no passwords. Never for production.

::

    async with DevelopmentIdp(audience="http://127.0.0.1:8080") as idp:
        idp.issuer                   # http://127.0.0.1:PORT/development-only
        idp.token("alice")           # an access token as a login would give it

It serves discovery, JWKS, the authorization code flow with PKCE and a page of demo users, the device flow, and one grant
for scripts that needs a secret from the state folder. It binds to loopback only, and its issuer says "development-only".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealbus.agents.dev.idp.registry import DEMO_USERS, DemoUser

if TYPE_CHECKING:
    from sealbus.agents.dev.idp.server import DevelopmentIdp

__all__ = ["DEMO_USERS", "DemoUser", "DevelopmentIdp"]


def __getattr__(name: str) -> object:
    # Only the server needs the web framework and the OAuth library; adding users needs neither.
    if name == "DevelopmentIdp":
        from sealbus.agents.dev.idp.server import DevelopmentIdp

        return DevelopmentIdp
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
