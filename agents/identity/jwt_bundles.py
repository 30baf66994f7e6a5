"""The JWT bundles that the Workload API streams, each judged alone and kept under its own trust domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sealbus.agents.identity.x509_svid import parse_domain
from sealbus.envelopes.errors import BundleRefused, EnvelopeError
from sealbus.envelopes.trust import JwtBundle, TrustBundles

__all__ = ["BundlesReading", "read_jwt_bundles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlesReading:
    """One response, read: the bundles now in force, whether they differ from before, and why some were refused."""

    bundles: TrustBundles
    changed: bool
    refused: tuple[str, ...]


def read_jwt_bundles(given: Mapping[str, bytes], before: TrustBundles) -> BundlesReading:
    """Return the bundles in force after a response with `given`: JWK sets by the SPIFFE ID of their trust domain.

    A bundle that is refused leaves the old one of its trust domain in force; one that is absent is gone
    (SPIFFE_Workload_API.md section 4.4); one whose bytes are the same is not parsed again.
    """
    bundles: list[JwtBundle] = []
    refused: list[str] = []
    for name, jwks in sorted(given.items()):
        try:
            trust_domain = parse_domain(name)
        except EnvelopeError:
            refused.append(f"JWT bundle of {name[:256]!r}: not a trust domain")
            continue
        old = before.get(trust_domain)
        try:
            bundles.append(old if old is not None and old.jwks == jwks else JwtBundle.parse(trust_domain, jwks))
        except BundleRefused as error:
            refused.append(error.detail)
            if old is not None:
                bundles.append(old)
    after = TrustBundles(bundles)
    changed = len(after) != len(before) or any(before.get(name) is not bundle for name, bundle in after.items())
    return BundlesReading(bundles=after, changed=changed, refused=tuple(refused))
