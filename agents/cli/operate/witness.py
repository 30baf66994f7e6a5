"""`sealbus witness keygen|key`: keys of a witness."""

from __future__ import annotations

from pathlib import Path

import click

from sealbus.agents.cli.options import PATH, json_option
from sealbus.agents.cli.output import print_json

_TYPES = {"ml-dsa-44": "ML_DSA_44", "ed25519": "ED25519"}


@click.group("witness")
def command() -> None:
    """Make keys of a witness, which cosigns checkpoints of other logs."""


@command.command("keygen")
@click.argument("name")
@click.argument("file", type=PATH)
@click.option("--type", "kind", type=click.Choice(list(_TYPES)), default="ml-dsa-44", show_default=True,
              help="Type of the key; older logs and clients know ed25519 only.")  # fmt: skip
@json_option
def keygen(name: str, file: Path, kind: str, as_json: bool) -> None:
    """Make a key for the witness NAME in FILE (mode 0600), and print its verifier key.

    NAME is a URL without a scheme, such as witness.example.org/w1. Give the verifier key to everyone who verifies logs that
    this witness cosigns. A witness may have a key of each type: list both files in control.witness.signing_keys.
    """
    from sealbus.agents.control.witness.keys import make_witness_key
    from sealbus.envelopes.log.cosignature import CosignatureType

    _print_key(make_witness_key(file, name, CosignatureType[_TYPES[kind]]).verifier.text, file, as_json)


@command.command("key")
@click.argument("file", type=PATH)
@json_option
def key(file: Path, as_json: bool) -> None:
    """Print the verifier key of the witness's key in FILE."""
    from sealbus.agents.control.witness.keys import load_witness_key

    _print_key(load_witness_key(file).verifier.text, file, as_json)


def _print_key(verifier: str, file: Path, as_json: bool) -> None:
    if as_json:
        print_json({"name": verifier.partition("+")[0], "file": str(file), "verifier": verifier})
    else:
        click.echo(verifier)
