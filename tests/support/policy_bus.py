"""A store of policies on a real server, a policy server before it, and an OPA that polls that: what a deployment has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from support.identity import StaticIdentity
from support.lab import Lab
from support.opa import OpaServer
from support.policies import signing_key
from support.x509 import ThrowawayCa

from sealbus.agents.control.policy_server import PolicyServer
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, policy_synced
from sealbus.bus.ports import X509Material
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, key_id
from sealbus.policies.opa.config import OpaFiles, opa_config

__all__ = ["ANCHORS", "COMPOSER", "CONTROL", "ROOT", "control_identity", "opa_polling", "pushed", "serving"]

ROOT, COMPOSER = signing_key(), signing_key()
ANCHORS = {key_id(ROOT.public): ROOT.public}
CONTROL = "spiffe://example.org/control"


def control_identity(ca: ThrowawayCa) -> StaticIdentity:
    """Return the identity of the policy server, whose SVID names the address that OPA will compare."""
    identity = StaticIdentity(ca, CONTROL)
    svid = ca.issue(CONTROL, addresses=["127.0.0.1"])
    identity.material = X509Material(
        spiffe_id=identity.spiffe_id,
        chain=(svid.cert_der,),
        key=svid.key_der,
        bundles=dict(identity.anchors),
        not_before=svid.not_before,
        not_after=svid.not_after,
    )
    return identity


async def pushed(store: PolicyStore, name: str, raw: bytes, serial: int) -> None:
    """Put bytes into the store as whoever may write there can, judged by nobody."""
    before = await store.read(name)
    await store.push(name, raw, serial, last=before.last if before is not None else 0)


@asynccontextmanager
async def serving(
    lab: Lab, store: PolicyStore, folder: Path, *, key: SigningKey = COMPOSER, address: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[PolicySync, PolicyServer]]:
    """Run a policy server for `store`, which signs by `key`."""
    async with policy_synced(PolicySync(store, folder, ANCHORS)) as sync:
        server = PolicyServer(sync, key, address=address, identity=control_identity(lab.ca))
        running = asyncio.create_task(server.run())
        try:
            listening = asyncio.create_task(server.listening.wait())
            await asyncio.wait([running, listening], return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            if running.done():
                running.result()
            yield sync, server
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@contextmanager
def opa_polling(
    lab: Lab, port: int, folder: Path, *, signers: Sequence[PublicKey] = (COMPOSER.public,)
) -> Iterator[OpaServer]:
    """Run an OPA that takes its policy, by one of `signers`, from the policy server at `port`; blocks while it starts."""
    folder.mkdir()
    svid = lab.ca.issue("spiffe://example.org/opa")
    files = OpaFiles(certificate=folder / "svid.pem", key=folder / "svid.key", bundle=folder / "bundle.pem")
    files.certificate.write_bytes(svid.cert_pem)
    files.key.write_bytes(svid.key_pem)
    files.bundle.write_bytes(lab.ca.cert_pem)
    config = folder / "opa.json"
    config.write_text(opa_config(f"https://127.0.0.1:{port}", signers, files), encoding="ascii")
    opa = OpaServer("--config-file", str(config), "--optimize-store-for-read-speed")
    with opa:
        yield opa
