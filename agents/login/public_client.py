"""The public client that logs a person in: its issuer, its identifier, and the login that it requests (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.agents.runtime.settings.schema import ClientTable
from sealbus.envelopes.errors import ConfigurationError

_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}(?: [\x21\x23-\x5b\x5d-\x7e]{1,256}){0,63}")
"""RFC 6749 section 3.3."""
_RESOURCE_BYTES: Final = 2_048
_REDIRECT: Final = re.compile(
    r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::([0-9]{1,5}))?(?:/[A-Za-z0-9._~/-]{0,256})?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicClient:
    """A client without a secret, and the login that it requests.

    `issuer` must equal that of the metadata character by character; it is https, or http on a loopback address. A
    `redirect_uri` without a port stands for every port (RFC 8252 section 7.3). `acr` names the required strength of the
    login, `max_age` its greatest age in seconds (RFC 9470). Raises `ConfigurationError`, naming the setting or option, for a
    bad value.
    """

    issuer: str
    client_id: str
    scope: str = "openid"
    resource: str | None = None
    redirect_uri: str = "http://127.0.0.1/callback"
    acr: str | None = None
    max_age: int | None = None

    def __post_init__(self) -> None:
        if not is_secure_url(self.issuer) or "?" in self.issuer:
            raise ConfigurationError("client.issuer must be an https URL without query, or http on a loopback address")
        if not _ID.fullmatch(self.client_id):
            raise ConfigurationError("client.client_id must be up to 256 characters of ASCII without spaces")
        if self.scope and not _SCOPE.fullmatch(self.scope):
            raise ConfigurationError("client.scope must be scopes, separated by single spaces")
        if self.resource is not None and not _is_resource(self.resource):
            raise ConfigurationError("client.resource must be an absolute URI without a fragment")
        if self.acr is not None and not _SCOPE.fullmatch(self.acr):
            raise ConfigurationError("--acr must be one or more values, separated by single spaces")
        if self.max_age is not None and self.max_age < 0:
            raise ConfigurationError("--max-age must not be below 0")
        redirect = _REDIRECT.fullmatch(self.redirect_uri)
        if redirect is None or not 0 < int(redirect[1] or 1) < 65_536:
            raise ConfigurationError("client.redirect_uri must be http on 127.0.0.1, [::1] or localhost, without query")

    @classmethod
    def of(cls, table: ClientTable, *, acr: str | None = None, max_age: int | None = None) -> Self:
        """Return the client in the settings; raise `ConfigurationError` also if they name none."""
        if table.issuer is None:
            raise ConfigurationError("client.issuer is not set: name your identity provider there, or by --issuer")
        if table.client_id is None:
            raise ConfigurationError("client.client_id is not set: name the client there, or by --client-id")
        return cls(
            issuer=table.issuer,
            client_id=table.client_id,
            scope=table.scope,
            resource=table.resource,
            redirect_uri=table.redirect_uri,
            acr=acr,
            max_age=max_age,
        )

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of a request that begins a login of either kind."""
        max_age = None if self.max_age is None else str(self.max_age)
        named = {"scope": self.scope or None, "acr_values": self.acr, "max_age": max_age}
        return {**{name: value for name, value in named.items() if value is not None}, **self.target}

    @property
    def target(self) -> dict[str, str]:
        """The parameter that names the resource of a token (RFC 8707), in every request for a token."""
        return {} if self.resource is None else {"resource": self.resource}


def _is_resource(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and not set(text) & {"#", " "}
    return plain and bool(parts.scheme and (parts.netloc or parts.path)) and len(text) <= _RESOURCE_BYTES
