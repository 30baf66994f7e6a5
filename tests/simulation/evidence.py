"""What the log of a simulation proves: it is exported and verified as an auditor does, who knows nothing but its root."""

from __future__ import annotations

from pathlib import Path

from sealbus.agents.evidence.export import export_log, log_files
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import ShownElsewhere, Verification, verify_export
from sealbus.envelopes.export.trust_root import Root
from simulation.cells import LOGS
from simulation.network import Link, SimulatedTransport
from simulation.site import Site

__all__ = ["audit"]


async def audit(site: Site, link: Link, *, cell: str, log: Path, export: Path, beside: ShownElsewhere) -> Verification:
    """Export the log of `cell` in the folder `log` into the new folder `export`, with its records, and verify it."""
    root = Root(
        origin=LOGS[cell].origin,
        keys=(LOGS[cell].signer.verifier,),
        bundles=frozenset({site.first_bundle[cell]}),
        names=site.names,
        minters=site.deployment.minters,
        notaries=site.deployment.notaries,
    )
    await export_log(export, get=log_files(log), transport=SimulatedTransport(link, site.brokers[cell]), root=root)
    return verify_export(FolderFiles(export), root, beside=beside, processes=1)
