"""Who logged in, for whom, until when: what codes and tokens are made of (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from sealbus.agents.dev.idp.users import DemoUser

__all__ = ["DeviceLogin", "IssuedCode", "Login", "valid_resource"]

LONGEST_RESOURCE: Final = 256


def valid_resource(resource: str) -> bool:
    """Say whether `resource` may be an audience: an absolute URI without a fragment (RFC 8707 section 2)."""
    try:
        parts = urlsplit(resource)
    except ValueError:
        return False
    return (
        bool(parts.scheme and (parts.netloc or parts.path))
        and "#" not in resource
        and len(resource) <= LONGEST_RESOURCE
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One login. Times are seconds since the Unix epoch; `expires_in` is how long tokens of it live."""

    user: DemoUser
    client_id: str
    scope: str
    audience: str
    session: str
    auth_time: int
    expires_in: int
    nonce: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCode:
    """What an authorization code stands for; answers the questions of authlib's `AuthorizationCodeMixin`."""

    login: Login
    redirect_uri: str
    code_challenge: str = field(repr=False)
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        """Return where the code was sent."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """Return what was asked for."""
        return self.login.scope


@dataclass(slots=True, kw_only=True)
class DeviceLogin:
    """A device that waits for its user (RFC 8628). `login` is what the user gave it, `denied` that they did not."""

    client_id: str
    user_code: str
    scope: str
    audience: str
    expires: int
    """In microseconds since the Unix epoch."""
    interval: int
    """Seconds that must pass between two questions; grows by 5 with each one that came too early."""
    asked: int | None = None
    """When the device asked last, in microseconds."""
    login: Login | None = None
    denied: bool = False

    @property
    def decided(self) -> bool:
        """Whether the user has answered; they answer once."""
        return self.denied or self.login is not None
