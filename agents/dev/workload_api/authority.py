"""The development authority of one trust domain: its CA, its JWT signing keys, and the trust domains it federates with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sealbus.agents.dev.workload_api.certificates import IssuedSvid, X509Authority, issue_svid, make_authority
from sealbus.agents.dev.workload_api.jwt_keys import (
    IssuedToken,
    JwtKey,
    KeyRing,
    check_token,
    issue_token,
    jwks,
    make_jwt_key,
)
from sealbus.agents.dev.workload_api.state import AuthorityState, load_state, save_state
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

CA_TTL = 365 * 86_400
"""Seconds that a development CA lives: longer than a development state folder is used."""

_LEAST_CA_LIFE = 86_400
"""Seconds: a stored CA that ends sooner is replaced when it is opened."""


class DevelopmentAuthority:
    """An authority that issues SVIDs for any SPIFFE ID of one trust domain, and rotates its keys on request.

    It is in memory unless made by `open`. The holder of this object can be any workload: development and tests only. It is
    used from one thread, and blocks no longer than a P-256 signature; `open` and the rotations of a stored authority also
    write one small file.
    """

    def __init__(
        self,
        trust_domain: TrustDomain,
        *,
        clock: Clock = wall_clock,
        ca_ttl: int = CA_TTL,
        state: AuthorityState | None = None,
        path: Path | None = None,
    ) -> None:
        self.trust_domain = trust_domain
        self.clock = clock
        self._ca_ttl = ca_ttl
        self._path = path
        self.x509: KeyRing[X509Authority] = state.x509 if state else KeyRing(self._new_ca())
        self.jwt: KeyRing[JwtKey] = state.jwt if state else KeyRing(make_jwt_key())
        self._federated: dict[TrustDomain, DevelopmentAuthority] = {}
        self._listeners: dict[int, Callable[[], None]] = {}
        self._subscribed = 0

    @classmethod
    def open(
        cls, path: Path, trust_domain: TrustDomain, *, clock: Clock = wall_clock, ca_ttl: int = CA_TTL
    ) -> DevelopmentAuthority:
        """Read the authority in the file `path`, or make one and store it there (mode 0600).

        Keys survive a restart, so that earlier messages still verify. Raises `ConfigurationError` if the file is not
        readable, is open to others, or is of another trust domain.
        """
        state = load_state(path, trust_domain)
        authority = cls(trust_domain, clock=clock, ca_ttl=ca_ttl, state=state, path=path)
        left = authority.x509.current.certificate.not_valid_after_utc.timestamp() - clock() / SECOND
        if left < _LEAST_CA_LIFE:
            authority.x509 = KeyRing(authority._new_ca())
        authority._save()
        return authority

    def issue_x509(self, spiffe_id: SpiffeId, *, dns_names: Iterable[str] = (), ttl: int) -> IssuedSvid:
        """Issue an X.509-SVID that lives `ttl` seconds; raise `ConfigurationError` for another trust domain's ID."""
        self._own(spiffe_id)
        return issue_svid(self.x509.current, spiffe_id, dns_names=dns_names, now=self.clock(), ttl=ttl)

    def issue_jwt(self, spiffe_id: SpiffeId, audience: Sequence[str], *, ttl: int) -> IssuedToken:
        """Issue a JWT-SVID that lives `ttl` seconds; raise `ConfigurationError` for another trust domain's ID."""
        self._own(spiffe_id)
        return issue_token(self.jwt.current, spiffe_id, audience, now=self.clock(), ttl=ttl)

    def check(self, token: str, audience: str) -> dict[str, object]:
        """Return the claims of a JWT-SVID of this or a federated trust domain; raise `TokenError`.

        A key vouches for subjects of its own trust domain only: bundles are never pooled.
        """
        keys = {key.kid: (name, key) for name, authority in self._domains().items() for key in authority.jwt.trusted}
        return check_token(token, audience, keys, now=self.clock())

    def x509_bundle(self) -> tuple[bytes, ...]:
        """Return the trusted CA certificates as DER."""
        return tuple(authority.der for authority in self.x509.trusted)

    def jwt_bundle(self) -> bytes:
        """Return the trusted JWT keys as a JWK set."""
        return jwks(self.jwt.trusted)

    def x509_bundles(self) -> dict[TrustDomain, tuple[bytes, ...]]:
        """Return the X.509 bundles of this trust domain and of each that it federates with."""
        return {name: authority.x509_bundle() for name, authority in self._domains().items()}

    def jwt_bundles(self) -> dict[TrustDomain, bytes]:
        """Return the JWK sets of this trust domain and of each that it federates with."""
        return {name: authority.jwt_bundle() for name, authority in self._domains().items()}

    def federate(self, other: DevelopmentAuthority) -> Callable[[], None]:
        """Hand out `other`'s current bundles too; return the function that ends this."""
        if other.trust_domain == self.trust_domain:
            raise ValueError("a trust domain does not federate with itself")
        self._federated[other.trust_domain] = other
        unsubscribe = other.on_change(self._changed)
        self._changed()

        def end() -> None:
            unsubscribe()
            if self._federated.pop(other.trust_domain, None) is not None:
                self._changed()

        return end

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each change of keys or bundles; return the unsubscriber."""
        self._subscribed += 1
        number = self._subscribed
        self._listeners[number] = listener

        def unsubscribe() -> None:
            self._listeners.pop(number, None)

        return unsubscribe

    def prepare_x509(self) -> None:
        """Publish the next CA; nothing is signed by it yet."""
        self.x509.prepare(self._new_ca())
        self._rotated()

    def activate_x509(self) -> None:
        """Issue from the prepared CA; every X.509-SVID is replaced at once, the old CA stays trusted."""
        self.x509.activate()
        self._rotated()

    def prune_x509(self) -> None:
        """Remove the old CAs from the bundle: certificates that they signed no longer verify."""
        self.x509.prune()
        self._rotated()

    def prepare_jwt(self) -> None:
        """Publish the next JWT signing key; nothing is signed by it yet."""
        self.jwt.prepare(make_jwt_key())
        self._rotated()

    def activate_jwt(self) -> None:
        """Sign JWT-SVIDs with the prepared key; tokens of the old key stay valid but are no longer handed out."""
        self.jwt.activate()
        self._rotated()

    def prune_jwt(self) -> None:
        """Remove the old JWT keys from the bundle: tokens that they signed no longer verify."""
        self.jwt.prune()
        self._rotated()

    def _domains(self) -> Mapping[TrustDomain, DevelopmentAuthority]:
        return {self.trust_domain: self, **self._federated}

    def _own(self, spiffe_id: SpiffeId) -> None:
        if spiffe_id.trust_domain != self.trust_domain:
            raise ConfigurationError(f"{spiffe_id} is not of the development trust domain {self.trust_domain}")

    def _new_ca(self) -> X509Authority:
        return make_authority(self.trust_domain, now=self.clock(), ttl=self._ca_ttl)

    def _rotated(self) -> None:
        self._save()
        self._changed()

    def _save(self) -> None:
        if self._path is not None:
            save_state(self._path, self.trust_domain, AuthorityState(x509=self.x509, jwt=self.jwt))

    def _changed(self) -> None:
        for listener in tuple(self._listeners.values()):
            listener()
