"""`sealbus policy fetch`: copy the policy from the bucket into a workload's folder before the workload starts."""

from __future__ import annotations

import click

from sealbus.agents.cli.options import as_command, config_option, json_option
from sealbus.agents.cli.output import note, print_json


@click.command("fetch")
@click.argument("name")
@config_option
@json_option
@as_command
async def fetch(name: str, config: str | None, as_json: bool) -> None:
    """Copy the policy in force to the place where the workload NAME keeps it (`policy.cache`), and exit.

    For an OPA that runs with the workload and does not start without a bundle. The policy is verified as by the workload.
    """
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.policy.source import open_sync
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.envelopes.errors import ConfigurationError

    settings = load_settings(config).for_command()
    async with (
        open_connection(name, settings) as (_, connection),
        open_sync(name, settings.policy, connection, for_opa=True) as sync,
    ):
        revision = sync.in_force.bundle.revision if sync.in_force.bundle is not None else ""
        bundle, unkept = sync.bundle, sync.unkept
    # Raised outside, because the task groups inside would wrap the error in an exception group.
    if unkept:
        raise ConfigurationError(unkept)
    if as_json:
        print_json({"revision": revision, "bundle": str(bundle)})
    else:
        note(f"policy {revision} is in {bundle}")
