"""The OPAs of the stack: one beside each agent that asks its own, and the central one."""

from __future__ import annotations

from typing import Final

from sealbus.envelopes.trust.keys import PublicKey
from sealbus.policies.opa.config import OpaFiles, opa_config
from sealbus.policies.opa.process import MutualTls, server_arguments
from stack.probes import is_there
from stack.program import Program
from stack.roster import OPA, Workload
from stack.site import Site
from stack.tools import CONFIGURATION, find_tool

__all__ = ["central_opa", "sidecar_opa"]

SYSTEM: Final = CONFIGURATION / "opa" / "system"
"""The policy bundle that says who may ask the central OPA what."""


def sidecar_opa(site: Site, workload: Workload) -> Program:
    """Return the OPA beside `workload`, of the same user, on a socket that nobody else may open."""
    socket = site.sidecar(workload)
    site.own_folder(workload, "opa")
    socket.unlink(missing_ok=True)
    return _opa(site, workload, server_arguments(socket=socket, bundle=site.composed(workload)))


def central_opa(site: Site, signer: PublicKey) -> Program:
    """Return the OPA that is asked over mutual TLS, whose SVID is kept in `site.svid(OPA)`.

    It takes its policy from the policy server, which signs by `signer`.
    """
    folder = site.svid(OPA)
    tls = MutualTls(
        address=f"127.0.0.1:{site.ports.opa}",
        certificate=folder / "svid.pem",
        key=folder / "svid.key",
        trust_bundle=folder / "bundle.pem",
        system=SYSTEM,
    )
    socket = site.sidecar(OPA)
    site.own_folder(OPA, "opa")
    socket.unlink(missing_ok=True)
    files = OpaFiles(certificate=tls.certificate, key=tls.key, bundle=tls.trust_bundle)
    config = site.own_folder(OPA) / "opa.json"
    config.write_text(opa_config(site.policy_url, [signer], files), encoding="ascii")
    config.chmod(0o644)
    return _opa(site, OPA, server_arguments(socket=socket, config=config, tls=tls))


def _opa(site: Site, workload: Workload, arguments: list[str]) -> Program:
    socket = site.sidecar(workload)
    return Program(
        [str(find_tool("opa")), *arguments],
        name=f"opa-{workload.name}",
        uid=workload.uid,
        gid=workload.gid,
        log=site.logs / f"opa-{workload.name}.log",
        healthy=is_there(socket),
        environment={"HOME": str(site.home(workload))},
    )
