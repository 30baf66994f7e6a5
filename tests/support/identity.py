"""An `Identity` that a test holds in its hand: X.509-SVIDs from a throwaway CA, rotated when the test says so."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["StaticIdentity"]


class StaticIdentity:
    """One workload's identity. `life` is that of its X.509-SVIDs in seconds; `sealer` and JWT `bundles` are optional.

    `federated` are further CAs whose certificates are given as bundles beside `ca`'s own.
    """

    def __init__(
        self,
        ca: ThrowawayCa,
        spiffe_id: str,
        *,
        life: float = 3600.0,
        sealer: Callable[[], Sealer] | None = None,
        bundles: TrustBundles | None = None,
        federated: tuple[ThrowawayCa, ...] = (),
    ) -> None:
        self.ca = ca
        self.spiffe_id = SpiffeId.parse(spiffe_id)
        self.life = life
        self.anchors: dict[TrustDomain, tuple[bytes, ...]] = {
            TrustDomain(one.trust_domain): (one.cert_der,) for one in (ca, *federated)
        }
        self._sealer = sealer
        self._bundles = bundles or TrustBundles()
        self._callbacks: list[Callable[[], None]] = []
        self.material: X509Material | None = None
        self.renew(life)

    def renew(self, life: float, *, age: float = 60.0) -> None:
        """Take a new X.509-SVID that ends `life` seconds from now, and tell nobody."""
        self.show(self.ca.issue(str(self.spiffe_id), life=life, age=age))

    def show(self, svid: IssuedSvid) -> None:
        """Take this X.509-SVID, whoever issued it, and tell nobody."""
        self.material = X509Material(
            spiffe_id=self.spiffe_id,
            chain=(svid.cert_der,),
            key=svid.key_der,
            bundles=dict(self.anchors),
            not_before=svid.not_before,
            not_after=svid.not_after,
        )

    def rotate(self, life: float | None = None, *, age: float = 60.0) -> None:
        """Take a new X.509-SVID and call back, as the Workload API's stream does."""
        self.renew(self.life if life is None else life, age=age)
        self.notify()

    def notify(self) -> None:
        """Call back whoever asked for it."""
        for callback in tuple(self._callbacks):
            callback()

    def sealer(self) -> Sealer:
        if self._sealer is None:
            raise IdentityUnavailable("this test's identity cannot seal")
        return self._sealer()

    def bundles(self) -> TrustBundles:
        return self._bundles

    def x509(self) -> X509Material:
        if self.material is None or self.material.not_after <= time.time() * 1e6:
            raise IdentityUnavailable(f"{self.spiffe_id} has no X.509-SVID")
        return self.material

    def on_rotation(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)
