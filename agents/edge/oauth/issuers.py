"""The issuers whose tokens an edge accepts: one row of its table each, checked when the row is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sealbus.agents.edge.http.reachable import is_loopback
from sealbus.agents.edge.oauth.client_authentication import ClientAuthentication
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.spiffe_id import TrustDomain

DOOR_CLAIM: Final = "door"
"""Claim of a user context with the other protocol by which the user came. Only the edge sets it, never a token."""

ALGORITHMS: Final = frozenset(
    {"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "Ed25519"}
)
"""All algorithms that a row may allow: signatures only, so that neither `none` nor a MAC can be configured.

Ed25519 goes by its name of RFC 9864; `EdDSA`, which leaves the curve open, is deprecated there.
"""
ACCESS_TOKEN_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
"""RFC 9068 section 4."""

# Stricter than RFC 3986, so that no two parsers can see two different hosts in one URL.
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)


@dataclass(frozen=True, slots=True)
class IntrospectionEndpoint:
    """The URL at which an issuer is asked about its tokens, and the client that asks."""

    url: str
    client: ClientAuthentication


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One issuer. Raises `ConfigurationError` for values that cannot be right.

    `issuer` is compared character by character with `iss` of a token and with `issuer` of the metadata. It is `https`, or
    `http` on a loopback address. `audiences` are the names of this edge; a token must be for one of them. `jwks_uri` replaces
    discovery. `types` are the accepted values of a token's `typ`, in lower case; `""` accepts a token without `typ`.

    `claims` maps claims of the token to claims of the user context; no others are copied. `session_claim` names the session;
    a token without that claim is its own session, by `jti`. The tenant is the value of `tenant_claim`, which a token must
    then have, or always `tenant`. `scope_claim` holds a token's scopes, as a text with spaces or an array. `scopes` are the
    scopes that reach the user context, by default all: a scope of another organisation's provider must not mean something
    here by chance. With `bound` tokens must be bound to a key (RFC 9449, RFC 8705). With `keep_tokens` unbound tokens are
    kept for the exit, if the edge has a key for that (`kept_tokens.py`). `require` are claims that a token must have with
    these values: they select tokens of an issuer from which anybody can get a token.

    `domain` is the partner that runs the issuer, None if we do. On the bus its subjects and clients are called `NAME@domain`,
    and by default none of its scopes is passed on. `client_claim` names the client; a subject that equals its client acts for
    itself (RFC 9068 section 2.2). With `workloads` all subjects are workloads outside our trust domain. Then a domain is
    required, because nothing else keeps their names and those of users apart.

    With `assertion_audience`, the identifier of our token service, backends can exchange the issuer's assertions there
    (`assertion.py`). No access token may be for that audience. Without `audiences` only assertions are accepted.

    Security event tokens and logout tokens (`security_events.py`) are accepted for `event_audiences` and `logout_audiences`,
    the client ids of applications that log out here; none are if these are empty.

    With `introspection` the issuer is asked for the claims of its access tokens (RFC 7662). Then `types` has no effect, and
    `algorithms` and `jwks_uri` apply only to event and logout tokens.
    """

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str] = frozenset({"ES256", "RS256"})
    jwks_uri: str | None = None
    types: frozenset[str] = ACCESS_TOKEN_TYPES
    claims: Mapping[str, str] = field(default_factory=dict, hash=False)
    session_claim: str = "sid"
    tenant_claim: str | None = None
    tenant: str | None = None
    scope_claim: str = "scope"
    scopes: frozenset[str] | None = None
    bound: bool = False
    keep_tokens: bool = False
    introspection: IntrospectionEndpoint | None = None
    domain: TrustDomain | None = None
    workloads: bool = False
    client_claim: str = "client_id"
    require: Mapping[str, str] = field(default_factory=dict, hash=False)
    assertion_audience: str | None = None
    event_audiences: frozenset[str] = frozenset()
    logout_audiences: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        # A query or fragment has no place in an issuer identifier (RFC 8414 section 2).
        if not is_secure_url(self.issuer) or "?" in self.issuer or not is_text(self.issuer):
            raise ConfigurationError(
                f"issuer {self.issuer!r}: must be an https URL without query and fragment, or http on a loopback address"
            )
        if self.jwks_uri is not None and not is_secure_url(self.jwks_uri, plain=self.issuer.startswith("http:")):
            raise ConfigurationError(
                f"jwks_uri of {self.issuer}: must be https unless the issuer itself is on loopback"
            )
        if self.introspection is not None and not is_secure_url(
            self.introspection.url, plain=self.issuer.startswith("http:")
        ):
            raise ConfigurationError(
                f"introspection of {self.issuer}: must be https unless the issuer itself is on loopback"
            )
        if not (self.audiences or self.assertion_audience) or not all(map(_is_name, self.audiences)):
            raise ConfigurationError(f"audiences of {self.issuer}: at least one, and none empty")
        self._check_domain()
        if not all(map(_is_name, self.event_audiences | self.logout_audiences)):
            raise ConfigurationError(f"event_audiences and logout_audiences of {self.issuer}: none empty")
        if not self.algorithms or not self.algorithms <= ALGORITHMS:
            raise ConfigurationError(f"algorithms of {self.issuer}: at least one, of {', '.join(sorted(ALGORITHMS))}")
        if not self.types or any(name != name.lower() for name in self.types):
            raise ConfigurationError(f"types of {self.issuer}: at least one, in lower case")
        names = [*self.claims, *self.claims.values(), *self.require, *self.require.values(), self.session_claim]
        names.append(self.scope_claim)
        if len(self.claims) > DEFAULT_LIMITS.text_items or not all(map(_is_name, names)):
            raise ConfigurationError(f"claims of {self.issuer}: at most 32, with names of at most 256 bytes")
        if DOOR_CLAIM in self.claims.values():
            raise ConfigurationError(f"claims of {self.issuer}: the edge itself sets {DOOR_CLAIM!r}")
        if len(set(self.claims.values())) != len(self.claims):
            raise ConfigurationError(f"claims of {self.issuer}: two claims get the same name")
        if self.scopes is not None and not all(_is_name(name) and " " not in name for name in self.scopes):
            raise ConfigurationError(f"scopes of {self.issuer}: each is one word of at most 256 bytes")
        if self.tenant_claim is not None and self.tenant is not None:
            raise ConfigurationError(f"tenant of {self.issuer}: either from a claim or fixed")
        if not all(name is None or _is_name(name) for name in (self.tenant_claim, self.tenant)):
            raise ConfigurationError(f"tenant of {self.issuer}: must be a text of 1 to 256 bytes")
        # A copy, so that the caller's own map cannot change the checked claims.
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))
        object.__setattr__(self, "require", MappingProxyType(dict(self.require)))
        if self.domain is not None and self.scopes is None:
            object.__setattr__(self, "scopes", frozenset())

    @property
    def grants(self) -> bool:
        """Whether clients can ask it for access tokens for this edge."""
        return bool(self.audiences) and not self.workloads

    def _check_domain(self) -> None:
        if self.workloads and self.domain is None:
            raise ConfigurationError(f"domain of {self.issuer}: name the domain of the workloads")
        if not _is_name(self.client_claim) or (self.client_claim == "sub" and not self.workloads):
            raise ConfigurationError(f"client_claim of {self.issuer}: a claim, and with users another than sub")
        if self.assertion_audience is None:
            return
        if self.domain is None or self.workloads or self.introspection is not None:
            raise ConfigurationError(f"assertion_audience of {self.issuer}: for users of a domain, by JWTs")
        if not _is_name(self.assertion_audience) or self.assertion_audience in self.audiences:
            raise ConfigurationError(f"assertion_audience of {self.issuer}: another name than those in access tokens")


def is_secure_url(url: str, *, plain: bool = True) -> bool:
    """Return whether `url` is an https URL without credentials and fragment, or, if `plain`, http on a loopback address."""
    match = _URL.fullmatch(url)
    if match is None:
        return False
    return match["scheme"] == "https" or (plain and is_loopback(match["host"].strip("[]")))


def _is_name(text: str) -> bool:
    return bool(text) and is_text(text)
