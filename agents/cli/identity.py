"""`sealbus identity show`: who this workload is, and until when."""

from __future__ import annotations

import asyncio

import click

from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import print_json, print_table, shown_time

__all__ = ["command"]


@click.group("identity")
def command() -> None:
    """Show this workload's identity."""


@command.command("show")
@config_option
@as_option("shop-web")
@json_option
def show(config: str | None, as_name: str, as_json: bool) -> None:
    """Ask the Workload API and print the SPIFFE ID, the SVIDs' ends and the trust bundles; no key, no token."""
    asyncio.run(_show(config, as_name, as_json=as_json))


async def _show(config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.agents.identity import WorkloadIdentity
    from sealbus.agents.runtime import workload_api_of
    from sealbus.agents.settings import load_settings

    settings = load_settings(config)
    async with WorkloadIdentity.connect(workload_api_of(settings, as_name)) as identity:
        material, sealer, bundles = identity.x509(), identity.sealer(), identity.bundles()
        facts = {
            "spiffe_id": str(identity.spiffe_id),
            "key": sealer.key.public.thumbprint,
            "x509_not_after": shown_time(material.not_after),
            "jwt_expires": shown_time(sealer.expires),
            "trust_bundles": {str(name): len(bundle.keys) for name, bundle in bundles.items()},
        }
    if as_json:
        print_json(facts)
    else:
        print_table("", ("identity", ""), [(name, str(value)) for name, value in facts.items()])
