"""Registration entries: which workload gets which SPIFFE ID from SPIRE."""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The processes of user `uid` are `spiffe_id`. Lives in seconds; an X.509-SVID begins ten seconds before it is made.

    `dns` are names for peers that check host names, the first of them the certificate's common name. `federates_with`
    are the trust domains whose bundles the workload is given beside its own.
    """

    spiffe_id: SpiffeId
    uid: int
    x509_ttl: int = 3_600
    jwt_ttl: int = 300
    dns: tuple[str, ...] = ()
    federates_with: tuple[TrustDomain, ...] = ()

    def __post_init__(self) -> None:
        if self.uid < 0 or self.x509_ttl < 1 or self.jwt_ttl < 1:
            raise ValueError("a user ID from 0 and lives from one second are needed")

    def arguments(self, parent: SpiffeId) -> list[str]:
        """Return the arguments of `spire-server entry create` below the agent `parent`."""
        arguments = [
            *("-parentID", str(parent), "-spiffeID", str(self.spiffe_id), "-selector", f"unix:uid:{self.uid}"),
            *("-x509SVIDTTL", str(self.x509_ttl), "-jwtSVIDTTL", str(self.jwt_ttl)),
        ]
        for name in self.dns:
            arguments += ["-dns", name]
        for domain in self.federates_with:
            arguments += ["-federatesWith", f"spiffe://{domain}"]
        return arguments
