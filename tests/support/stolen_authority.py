"""What somebody can do who has the keys of a SPIRE server: they lie on its disk, where the disk key manager puts them."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64decode
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from stack.spire_server import SpireServer
from support.envelopes import Issuer
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.bus.ports import X509Material
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["StolenAuthority", "steal"]


@dataclass(frozen=True, kw_only=True)
class StolenAuthority:
    """Issues X.509-SVIDs and JWT-SVIDs under any name, with the real keys of one trust domain."""

    ca: ThrowawayCa
    issuer: Issuer

    def x509(
        self, spiffe_id: SpiffeId, bundles: dict[TrustDomain, tuple[bytes, ...]]
    ) -> tuple[X509Material, IssuedSvid]:
        """Return an X.509-SVID as the Workload API would give it, with `bundles`, and the same as it was issued."""
        svid = self.ca.issue(str(spiffe_id), addresses=("127.0.0.1",))
        material = X509Material(
            spiffe_id=spiffe_id,
            chain=(svid.cert_der,),
            key=svid.key_der,
            bundles=bundles,
            not_before=svid.not_before,
            not_after=svid.not_after,
        )
        return material, svid


async def steal(server: SpireServer) -> StolenAuthority:
    """Return the authority of `server` as it is now; blocks for a moment."""
    stored = json.loads((server.folder / "keys.json").read_bytes())["keys"]
    keys: dict[ec.EllipticCurvePublicNumbers, ec.EllipticCurvePrivateKey] = {}
    for encoded in stored.values():
        key = load_der_private_key(b64decode(encoded), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        keys[key.public_key().public_numbers()] = key
    domain = server.trust_domain
    [certificate] = x509.load_pem_x509_certificates(await server.bundle())
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    [jwk] = [one for one in json.loads(await server.bundle(spiffe=True))["keys"] if one["use"] == "jwt-svid"]
    signer = ec.EllipticCurvePublicNumbers(_integer(jwk["x"]), _integer(jwk["y"]), ec.SECP256R1())
    return StolenAuthority(
        ca=ThrowawayCa.stolen(domain.name, certificate, keys[public.public_numbers()]),
        issuer=Issuer(trust_domain=domain, kid=jwk["kid"], key=keys[signer]),
    )


def _integer(text: str) -> int:
    return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
