"""`sealbus policy opa-config`: the configuration with which an OPA takes its policy from the policy server."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["opa_config"]

_file = click.Path(path_type=Path)


@click.command("opa-config")
@click.option("--url", required=True, metavar="URL", help="The policy server: https, its host named in its SVID.")
@click.option(
    "--signer", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
    help="Public key in PEM of policy.serve_key.",
)  # fmt: skip
@click.option("--certificate", type=_file, required=True, help="OPA's own SVID, as a file that is kept fresh.")
@click.option("--private-key", type=_file, required=True, help="Its key.")
@click.option("--trust-bundle", type=_file, required=True, help="The trust domain's X.509 bundle.")
@click.option("--persist", type=_file, default=None, help="Folder to start from while the policy server is away.")
def opa_config(
    url: str, signer: Path, certificate: Path, private_key: Path, trust_bundle: Path, persist: Path | None
) -> None:
    """Print OPA's configuration, JSON: `opa run --server --config-file FILE`."""
    from sealbus.envelopes.key_files import read_public_key
    from sealbus.policies import opa_config as config

    key = read_public_key(signer.read_bytes(), name=str(signer))
    files = config.OpaFiles(certificate=certificate, key=private_key, bundle=trust_bundle)
    click.echo(config.opa_config(url, key, files, persist=persist), nl=False)
