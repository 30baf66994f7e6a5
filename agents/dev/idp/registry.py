"""The registry of the development IdP: OAuth clients as the OAuth library needs them, and demo users (pure).

The users are those that the starter policy knows, and those added in `[dev.users]` of sealbus.toml.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.user_context import ClaimValue

CODE: Final = "authorization_code"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
SCRIPTS: Final = "urn:x-sealbus:development-only:user"
"""The grant of `sealbus token`: the holder of the state folder's secret names a user. No other server has this grant."""

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}(?: [\x21\x23-\x5b\x5d-\x7e]{1,64}){0,31}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_CLAIM: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_METHOD: Final = re.compile(r"[\x21-\x7e]{1,256}")
"""One value of `acr` or `amr`; a text holds several, separated by spaces."""

RESERVED_CLAIMS: Final = frozenset(
    {"iss", "exp", "nbf", "aud", "sub", "client_id", "iat", "jti", "scope", "sid", "auth_time", "nonce", "acr", "amr"}
    | {"cnf", "act", "may_act", "azp", "login_age"}
)
"""Claims that no user can be declared with: those that every token sets, and the facts of a login."""

MOST_USERS: Final = 200
"""Most users: all are on one page."""
MOST_CLAIMS: Final = 32
LONGEST_CLAIM: Final = 256
"""Most characters of a text."""
MOST_METHODS: Final = 8
OLDEST_LOGIN: Final = 31_536_000
"""Seconds: a year."""


def valid_scope(scope: str) -> bool:
    """Return whether `scope` is empty or up to 32 scope tokens of RFC 6749 section 3.3."""
    return not scope or _SCOPE.fullmatch(scope) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DevClient:
    """One client: public unless it has a `secret`. Redirect URIs are compared exactly, except for a loopback port.

    It implements authlib's `ClientMixin`, hence its names.
    """

    client_id: str
    redirect_uris: tuple[str, ...] = ()
    grants: frozenset[str] = frozenset({CODE})
    secret: str = field(default="", repr=False)

    def get_client_id(self) -> str:
        """Return the client's identifier."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """Return nothing: a request must name its redirect URI."""
        return

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """Return the requested scope, None if it is malformed; the policy decides what a scope allows."""
        return scope or "" if valid_scope(scope or "") else None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Return whether an answer may go to `redirect_uri` (RFC 9700 section 2.1, RFC 8252 section 7.3)."""
        return any(
            redirect_uri == registered or _same_but_port(redirect_uri, registered) for registered in self.redirect_uris
        )

    def check_client_secret(self, secret: str) -> bool:
        """Return whether `secret` is the client's; always false for a client without one."""
        return bool(self.secret) and hmac.compare_digest(self.secret.encode(), secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """Return whether the client authenticates by `method`: by its secret if it has one."""
        return method == ("client_secret_basic" if self.secret else "none")

    def check_response_type(self, response_type: str) -> bool:
        """Return whether the client may use the authorization endpoint with this response type."""
        return response_type == "code" and CODE in self.grants

    def check_grant_type(self, grant_type: str) -> bool:
        """Return whether the client may use a grant; refresh tokens are never granted."""
        return grant_type in self.grants


def _same_but_port(requested: str, registered: str) -> bool:
    """Return whether the URIs differ only by a loopback port: native apps get a port at run time."""
    try:
        parts, other = urlsplit(requested), urlsplit(registered)
        port = parts.port
    except ValueError:
        return False
    if other.scheme != "http" or other.hostname not in _LOOPBACK or other.port is not None or not port:
        return False
    host = f"[{other.hostname}]" if ":" in (other.hostname or "") else other.hostname
    # Rebuilt and compared as text, because a parser accepts more: user names, case, "#".
    return requested == f"http://{host}:{port}{other.path}{f'?{other.query}' if other.query else ''}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoUser:
    """A person who can log in without a password: the identifier is the token's `sub`, the claims are copied into it.

    `acr` and `amr` are the methods of the login, and `login_age` its age in seconds, as in a running session. The page of
    users shows the claim `name`. Raises `ConfigurationError` for a value that no token may hold.
    """

    identifier: str
    acr: str = ""
    amr: tuple[str, ...] = ()
    login_age: int = 0
    claims: Mapping[str, ClaimValue] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.identifier):
            raise ConfigurationError(
                f"demo user {self.identifier!r}: use up to 64 letters, digits and . _ @ -, starting with a letter or digit"
            )
        if self.acr and not _METHOD.fullmatch(self.acr):
            raise ConfigurationError(f"demo user {self.identifier}: acr must be a text without spaces")
        if len(self.amr) > MOST_METHODS or not all(map(_METHOD.fullmatch, self.amr)):
            raise ConfigurationError(
                f"demo user {self.identifier}: amr must be at most {MOST_METHODS} texts without spaces"
            )
        if not 0 <= self.login_age <= OLDEST_LOGIN:
            raise ConfigurationError(f"demo user {self.identifier}: login_age must be seconds, a year at most")
        if len(self.claims) > MOST_CLAIMS:
            raise ConfigurationError(f"demo user {self.identifier}: more than {MOST_CLAIMS} claims")
        for name, value in self.claims.items():
            if name in RESERVED_CLAIMS or not _CLAIM.fullmatch(name):
                raise ConfigurationError(f"demo user {self.identifier}: {name!r} cannot be a claim of a user")
            texts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(text, str) and len(text) > LONGEST_CLAIM for text in texts):
                raise ConfigurationError(
                    f"demo user {self.identifier}: claim {name} is over {LONGEST_CLAIM} characters"
                )
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))

    @property
    def name(self) -> str:
        """The name that people see."""
        name = self.claims.get("name")
        return name if isinstance(name, str) else self.identifier


DEMO_USERS: Final = (
    DemoUser(identifier="alice", claims={"name": "Alice Adams", "department": "shop", "region": "eu"}),
    DemoUser(identifier="bob", claims={"name": "Bob Brown", "department": "accounts", "region": "eu"}),
    DemoUser(identifier="carol", claims={"name": "Carol Clark", "department": "accounts", "region": "us"}),
    DemoUser(identifier="dave", claims={"name": "Dave Davis", "department": "guests", "region": "us"}),
    DemoUser(identifier="olga", claims={"name": "Olga Orlova", "department": "operations", "region": "eu"}),
)
"""alice, bob, carol and olga are users in the starter policy's data, dave is not. olga may use the console."""


def merged_users(more: Mapping[str, Mapping[str, object]]) -> tuple[DemoUser, ...]:
    """Return the demo users and `more`, each an identifier with claims; the same identifier replaces a demo user.

    `acr`, `amr` and `login_age` are given among the claims. Raises `ConfigurationError` for a claim other than a text, a
    whole number, true or false, or a list of texts.
    """
    users = {user.identifier: user for user in DEMO_USERS}
    for identifier, stated in more.items():
        claims = {name: _claim(identifier, name, value) for name, value in stated.items()}
        acr, amr, age = claims.pop("acr", ""), claims.pop("amr", ()), claims.pop("login_age", 0)
        if type(acr) is not str or type(amr) is not tuple or type(age) is not int:
            raise ConfigurationError(
                f"demo user {identifier}: acr must be a text, amr a list of texts, login_age a number of seconds"
            )
        users[identifier] = DemoUser(identifier=identifier, acr=acr, amr=amr, login_age=age, claims=claims)
    if len(users) > MOST_USERS:
        raise ConfigurationError(f"dev.users: more than {MOST_USERS} users")
    return tuple(users.values())


def _claim(identifier: str, name: str, value: object) -> ClaimValue:
    if isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ConfigurationError(f"demo user {identifier}: claim {name} must be a text, whole number, boolean or texts")
