"""`sealbus identity show|write`: this workload's identity and its expiry, or its X.509-SVID as files for a server."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import PATH, Invocation, invocation_options
from sealbus.agents.cli.output import note, print_facts, print_json
from sealbus.bus.inspection.documents import shown_time

if TYPE_CHECKING:
    from sealbus.agents.identity.svid_files.writer import SvidWriter
    from sealbus.bus.ports import X509Material


@click.group("identity")
def command() -> None:
    """Show this workload's identity, or keep it in files."""


@command.command("show")
@invocation_options("shop-web")
async def show(invocation: Invocation) -> None:
    """Ask the Workload API and print the SPIFFE ID, the expiry of the SVIDs and the trust bundles; no key, no token."""
    from sealbus.agents.identity import WorkloadIdentity
    from sealbus.agents.runtime.open import workload_api_of

    settings = invocation.settings()
    async with WorkloadIdentity.connect(
        workload_api_of(settings, invocation.as_name), deadline=settings.identity_within
    ) as identity:
        material, sealer, bundles = identity.x509(), identity.sealer(), identity.bundles()
        facts = {
            "spiffe_id": str(identity.spiffe_id),
            "key": sealer.key.public.thumbprint,
            "x509_not_after": shown_time(material.not_after),
            "jwt_expires": shown_time(sealer.expires),
            "trust_bundles": {str(name): len(bundle.keys) for name, bundle in bundles.items()},
        }
    print_facts(("identity", ""), facts, as_json=invocation.as_json)


@command.command("write")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--once", is_flag=True, help="Write the current identity and exit.")
@click.option(
    "--within",
    default=None,
    type=click.FloatRange(0.1, 3_600),
    metavar="SECONDS",
    help="How long to wait for the first identity; by default 60, or 5 with --once.",
)
@click.option(
    "--reload",
    "pid_file",
    default=None,
    metavar="PIDFILE",
    type=PATH,
    help="Send SIGHUP to this process after each change.",
)
@click.option(
    "--callout-health",
    "health",
    multiple=True,
    metavar="URL",
    help="Health address of an auth callout responder; may be repeated. Reload only once one of them answers 200.",
)
@click.option("--id", "spiffe_id", default=None, metavar="SPIFFE_ID", help="Which identity, if there are several.")
@click.option(
    "--also-trust",
    "domains",
    multiple=True,
    metavar="TRUST_DOMAIN",
    help="Add this federated trust domain to bundle.pem; may be repeated. Only behind an auth callout.",
)
@click.option(
    "--socket", default=None, metavar="ADDRESS", help="The Workload API, unix:///path; by default as elsewhere."
)
@invocation_options("nats")
def write(
    folder: Path,
    once: bool,
    within: float | None,
    pid_file: Path | None,
    health: tuple[str, ...],
    spiffe_id: str | None,
    domains: tuple[str, ...],
    socket: str | None,
    invocation: Invocation,
) -> None:
    """Keep this workload's X.509-SVID in DIR for a server that does not speak SPIFFE, until SIGTERM.

    DIR/svid.pem (chain), DIR/svid.key (mode 0600) and DIR/bundle.pem (trust bundle) change together at each rotation.
    """
    from sealbus.agents.identity.svid_files.files import SvidFiles
    from sealbus.agents.identity.svid_files.server import HealthAddresses, ServerProcess
    from sealbus.agents.identity.svid_files.writer import ReloadedServer, SvidWriter
    from sealbus.agents.identity.workload_api import Endpoint
    from sealbus.agents.runtime.settings.state_folder import lock_folder
    from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
    from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

    if health and pid_file is None:
        raise click.UsageError("--callout-health needs --reload")
    try:
        wanted = SpiffeId(spiffe_id) if spiffe_id is not None else None
        also_trusted = [TrustDomain(domain) for domain in domains]
    except EnvelopeError as error:
        raise ConfigurationError(f"--id, --also-trust: {error.detail}") from error
    server = None
    if pid_file is not None:
        server = ReloadedServer(process=ServerProcess(pid_file), responders=HealthAddresses(health) if health else None)
    endpoint = Endpoint.find(socket or _address(invocation))
    if once:
        endpoint.check()
    files = SvidFiles(folder, also_trusted=also_trusted)
    files.prepare()

    def written(material: X509Material) -> None:
        if invocation.as_json:
            print_json({"spiffe_id": str(material.spiffe_id), "x509_not_after": shown_time(material.not_after)})
        else:
            note(f"{material.spiffe_id} until {shown_time(material.not_after)} in {folder}")

    lock = lock_folder(folder, "identity")
    try:
        asyncio.run(
            _write(
                SvidWriter(endpoint, files, server=server, wanted=wanted, written=written, say=note),
                once=once,
                within=within,
            )
        )
    finally:
        os.close(lock)


def _address(invocation: Invocation) -> str | None:
    """Return the Workload API's address: a server's machine has SPIFFE_ENDPOINT_SOCKET and may have no settings."""
    from sealbus.agents.identity import ENVIRONMENT_VARIABLE
    from sealbus.agents.runtime.open import workload_api_of
    from sealbus.agents.runtime.settings.settings import load_settings

    if invocation.config is None and os.environ.get(ENVIRONMENT_VARIABLE):
        return None
    return workload_api_of(load_settings(invocation.config), invocation.as_name)


async def _write(writer: SvidWriter, *, once: bool, within: float | None) -> None:
    if once:
        await writer.write_once(deadline=within or 5.0)
        return
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(writer.keep_current(deadline=within or 60.0, patient=True))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    await asyncio.wait({running})
    if not running.cancelled():
        running.result()
