"""OAuth clients of the development IdP, as the OAuth library asks about them (pure)."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

__all__ = ["CODE", "DEMO_CLIENTS", "DEVICE_CODE", "SCRIPTS", "DevClient", "script_client", "valid_scope"]

CODE: Final = "authorization_code"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
SCRIPTS: Final = "urn:x-sealbus:development-only:user"
"""The grant of `sealbus token`: whoever holds the secret of the state folder names a user. No other server has it."""

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}(?: [\x21\x23-\x5b\x5d-\x7e]{1,64}){0,31}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


def valid_scope(scope: str) -> bool:
    """Say whether `scope` is empty or up to 32 scope tokens of RFC 6749 section 3.3."""
    return not scope or _SCOPE.fullmatch(scope) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DevClient:
    """One client: public unless it has a `secret`. Redirect URIs are compared exactly, but for a loopback port.

    It answers the questions of authlib's `ClientMixin`, whose names it has.
    """

    client_id: str
    redirect_uris: tuple[str, ...] = ()
    grants: frozenset[str] = frozenset({CODE})
    secret: str = field(default="", repr=False)

    def get_client_id(self) -> str:
        """Return the client's identifier."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """Return nothing: a request must say where its answer goes."""
        return

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Return the scope asked for, nothing if it is malformed; what a scope allows is the policy's to decide."""
        return scope or "" if valid_scope(scope or "") else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Say whether an answer may go to `redirect_uri` (RFC 9700 section 2.1, RFC 8252 section 7.3)."""
        return any(redirect_uri == one or _same_but_port(redirect_uri, one) for one in self.redirect_uris)

    def check_client_secret(self, secret: str) -> bool:
        """Say whether `secret` is the client's; one without a secret has none that is right."""
        return bool(self.secret) and hmac.compare_digest(self.secret.encode(), secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Say whether the client proves itself so: by its secret if it has one."""
        return method == ("client_secret_basic" if self.secret else "none")

    def check_response_type(self, response_type: str) -> bool:
        """Say whether the client may use the authorization endpoint so."""
        return response_type == "code" and CODE in self.grants

    def check_grant_type(self, grant_type: str) -> bool:
        """Say whether the client may use a grant; nobody has refresh tokens."""
        return grant_type in self.grants


def _same_but_port(asked: str, registered: str) -> bool:
    """Compare with any port where the registered URI is one of a loopback address: native apps get a port at run time."""
    try:
        one, other = urlsplit(asked), urlsplit(registered)
        port = one.port
    except ValueError:
        return False
    if other.scheme != "http" or other.hostname not in _LOOPBACK or other.port is not None or not port:
        return False
    host = f"[{other.hostname}]" if ":" in (other.hostname or "") else other.hostname
    # Put together anew and compared as text, so that nothing hides in what a parser forgives: user names, case, "#".
    return asked == f"http://{host}:{port}{other.path}{f'?{other.query}' if other.query else ''}"


DEMO_CLIENTS: Final = (
    DevClient(
        client_id="shop-web",
        redirect_uris=("http://127.0.0.1/callback", "http://[::1]/callback"),
        grants=frozenset({CODE, DEVICE_CODE}),
    ),
    DevClient(
        client_id="sealbus-cli",
        redirect_uris=("http://127.0.0.1/callback", "http://[::1]/callback"),
        grants=frozenset({CODE, DEVICE_CODE}),
    ),
)


def script_client(secret: str) -> DevClient:
    """Return the client behind `sealbus token`."""
    return DevClient(client_id="sealbus-token", grants=frozenset({SCRIPTS}), secret=secret)
