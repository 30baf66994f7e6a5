"""`sealbus policy build|sign`: make a bundle file from a folder, and sign it in OPA's format."""

from __future__ import annotations

from pathlib import Path

import click

from sealbus.agents.cli.options import EXISTING_FILE, EXISTING_FOLDER, FILE, json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.policy.key_option import key_option, read_key

_out = click.option("-o", "--output", type=FILE, required=True, help="The bundle file.")


@click.command("build")
@click.argument("folder", type=EXISTING_FOLDER)
@_out
@click.option("--revision", default="", help="By default that of .manifest, or one made from the contents.")
@click.option("--serial", default=0, type=click.IntRange(0), help="For a bundle that is to be signed and pushed.")
@click.option("--part", is_flag=True, help="A part of a platform or a team, which need not have the entry points.")
@json_option
def build(folder: Path, output: Path, revision: str, serial: int, part: bool, as_json: bool) -> None:
    """Check the policy in FOLDER and write it as a bundle."""
    from sealbus.policies.bundle.files import build_bundle, write_file

    # The push of the file finds out whether it has all denials before it.
    denials = max(serial - 1, 0)
    bundle = build_bundle(folder, revision=revision, serial=serial, denials=denials, part=part)
    write_file(bundle.raw, output)
    _print_facts({"file": str(output), "revision": bundle.revision, "serial": bundle.serial}, as_json=as_json)


@click.command("sign")
@click.argument("file", type=EXISTING_FILE)
@click.option("--name", required=True, help="What it will be pushed as: platform, or the name of a team.")
@key_option()
@click.option("-o", "--output", type=FILE, default=None, help="Otherwise FILE.")
@json_option
def sign(file: Path, name: str, key_file: Path, output: Path | None, as_json: bool) -> None:
    """Sign the bundle FILE to be pushed as NAME."""
    from sealbus.envelopes.trust.keys import key_id
    from sealbus.policies.bundle.files import read_file, write_file
    from sealbus.policies.bundle.format import read_bundle
    from sealbus.policies.bundle.signing import sign_bundle

    key = read_key(key_file)
    bundle = sign_bundle(read_bundle(read_file(file)), key, scope=name)
    write_file(bundle.raw, output or file)
    _print_facts({"file": str(output or file), "revision": bundle.revision, "key": key_id(key.public)}, as_json=as_json)


def _print_facts(facts: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        note(", ".join(f"{name} {value}" for name, value in facts.items() if value))
