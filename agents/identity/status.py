"""What operators see of a workload's identity: no key and no token, only whose, from where, and until when."""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain

__all__ = ["IdentityStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityStatus:
    """One moment of a workload's identity. Times are microseconds, 0 where there is no such SVID.

    `thumbprint` is the signing key's URN, the audience of its JWT-SVIDs. `x509_trust` and `jwt_trust` are the trust
    domains whose bundles are in force. `failure` is the last failure of a source that has not recovered, or empty.
    """

    endpoint: str
    spiffe_id: SpiffeId
    thumbprint: str
    x509_not_before: int
    x509_not_after: int
    jwt_issued: int
    jwt_expires: int
    x509_trust: tuple[TrustDomain, ...]
    jwt_trust: tuple[TrustDomain, ...]
    failure: str
