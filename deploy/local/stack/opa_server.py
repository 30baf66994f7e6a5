"""The OPAs of the stack: one beside each agent that asks its own, and the central one."""

from __future__ import annotations

from typing import Final

from sealbus.policies.opa_arguments import MutualTls, server_arguments
from stack.probes import is_there
from stack.program import Program
from stack.roster import OPA, Workload
from stack.run_as import run_as
from stack.site import SEALBUS, Site
from stack.tools import CONFIGURATION, find_tool

__all__ = ["central_opa", "sidecar_opa", "svid_files"]

SYSTEM: Final = CONFIGURATION / "opa" / "system"
"""The policy bundle that says who may ask the central OPA what."""


def sidecar_opa(site: Site, workload: Workload) -> Program:
    """Return the OPA beside `workload`, of the same user, on a socket that nobody else may open."""
    socket = site.sidecar(workload)
    site.own_folder(workload, "opa")
    socket.unlink(missing_ok=True)
    return _opa(site, workload, server_arguments(socket=socket, bundle=site.bundle))


def central_opa(site: Site) -> Program:
    """Return the OPA that is asked over mutual TLS, whose SVID `svid_files` keeps."""
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
    return _opa(site, OPA, server_arguments(socket=socket, bundle=site.bundle, tls=tls))


def svid_files(site: Site, workload: Workload, *arguments: str) -> Program:
    """Return what keeps the X.509-SVID of a server that speaks no SPIFFE in `site.svid(workload)`."""
    site.own_folder(workload)
    folder = site.svid(workload)
    command = [SEALBUS, "identity", "write", str(folder), "--id", str(workload.spiffe_id)]
    return Program(
        run_as(workload, [*command, "--socket", site.workload_api, *arguments]),
        name=f"identity-{workload.name}",
        log=site.logs / f"identity-{workload.name}.log",
        healthy=is_there(folder / "svid.pem"),
        environment=site.environment(workload),
    )


def _opa(site: Site, workload: Workload, arguments: list[str]) -> Program:
    socket = site.sidecar(workload)
    return Program(
        run_as(workload, [str(find_tool("opa")), *arguments]),
        name=f"opa-{workload.name}",
        log=site.logs / f"opa-{workload.name}.log",
        healthy=is_there(socket),
        environment={"HOME": str(site.folder / workload.name)},
    )
