"""A real central OPA for tests: mutual TLS with throwaway SVIDs, guarded by the bundle of `deploy/local/opa`."""

from __future__ import annotations

from pathlib import Path

from support.identity import StaticIdentity
from support.opa import OpaServer
from support.ports import held_port
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.runtime.policy.opa_tls import OpaTls
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.opa.process import MutualTls, server_arguments

__all__ = ["OPA_ID", "SYSTEM", "WORKER", "CentralOpa", "tls_of"]

SYSTEM = Path(__file__).parents[2] / "deploy" / "local" / "opa" / "system"
OPA_ID = "spiffe://example.org/opa"
WORKER = "spiffe://example.org/agent/planner"
"""A workload that may ask, as `deploy/local/opa` says."""


def tls_of(ca: ThrowawayCa, spiffe_id: str = WORKER, *, expected: str = OPA_ID) -> OpaTls:
    """Return what the central engine asks by as the workload `spiffe_id`."""
    return OpaTls(StaticIdentity(ca, spiffe_id), expected=frozenset({SpiffeId(expected)}))


class CentralOpa(OpaServer):
    """An OPA that decides by the file `bundle` and is asked at `url` over mutual TLS, in the trust domain of `ca`.

    Shows `svid`, which may be wrong on purpose. The folder of `bundle` must hold nothing else that changes.
    """

    def __init__(self, ca: ThrowawayCa, bundle: Path, *, svid: IssuedSvid | None = None) -> None:
        super().__init__()
        self.port = held_port()
        self.tls = MutualTls(
            address=f"127.0.0.1:{self.port}",
            certificate=self.folder / "svid.pem",
            key=self.folder / "svid.key",
            trust_bundle=self.folder / "trust.pem",
            system=SYSTEM,
        )
        self._bundle = bundle
        self.trust(ca)
        self.show(svid or ca.issue(OPA_ID))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def trust(self, *authorities: ThrowawayCa) -> None:
        """Put another trust bundle where OPA reads it."""
        self.tls.trust_bundle.write_bytes(b"".join(ca.cert_pem for ca in authorities))

    def show(self, svid: IssuedSvid) -> None:
        """Put another certificate with its key where OPA reads them."""
        self.tls.key.write_bytes(svid.key_pem)
        self.tls.certificate.write_bytes(svid.cert_pem)

    def command(self) -> list[str]:
        return server_arguments(socket=self.socket, bundle=self._bundle, tls=self.tls)
