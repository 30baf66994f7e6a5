"""One responder of the auth callout as a process of its own, for tests that kill it: `python responder_process.py FOLDER`.

The folder holds sealbus.toml and an SVID as PEM files. A line on stdout says that it answers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealbus.agents.control.callout.role import open_callout
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.engines.embedded import EmbeddedEngine


@dataclass
class FileIdentity:
    """The `Identity` port from files, for good."""

    spiffe_id: SpiffeId
    material: X509Material

    @classmethod
    def read(cls, folder: Path, spiffe_id: SpiffeId) -> FileIdentity:
        leaf = x509.load_pem_x509_certificate((folder / "svid.pem").read_bytes())
        root = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "svid.key").read_bytes(), None)
        der = serialization.Encoding.DER
        return cls(
            spiffe_id,
            X509Material(
                spiffe_id=spiffe_id,
                chain=(leaf.public_bytes(der),),
                key=key.private_bytes(der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
                bundles={spiffe_id.trust_domain: (root.public_bytes(der),)},
                not_before=int(leaf.not_valid_before_utc.timestamp()) * SECOND,
                not_after=int(leaf.not_valid_after_utc.timestamp()) * SECOND,
            ),
        )

    def x509(self) -> X509Material:
        return self.material

    def bundles(self) -> TrustBundles:
        return TrustBundles()

    def sealer(self) -> Sealer:
        raise IdentityUnavailable("a responder seals nothing")

    def on_rotation(self, callback: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


async def main(folder: Path) -> None:
    settings = load_settings(folder / "sealbus.toml", environment={})
    identity = FileIdentity.read(folder, settings.trust_domain.id("/control"))
    async with (
        EmbeddedEngine.of_folder() as engine,
        open_callout(settings, identity=identity, engine=engine) as callout,
    ):
        running = asyncio.create_task(callout.run())
        while callout.problem:  # noqa: ASYNC110 - readiness is looked at, as a probe does
            await asyncio.sleep(0.01)
        sys.stdout.write("answers\n")
        sys.stdout.flush()
        await running


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
