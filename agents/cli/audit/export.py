"""`sealbus audit export DIR` and `sealbus audit root`: the log as a folder, and the root file to verify it with."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from sealbus.agents.cli.audit.source import EvidenceSource, mirror_options, root_option
from sealbus.agents.cli.options import PATH, Invocation, config_option, invocation_options, log_folder_option
from sealbus.agents.cli.output import note, print_json, progress_bar


@click.command("export")
@click.argument("folder", type=PATH)
@root_option
@log_folder_option()
@mirror_options
@invocation_options("operator")
def export(
    folder: Path,
    root: Path | None,
    log_folder: Path | None,
    mirror: bool,
    policies: Path | None,
    invocation: Invocation,
) -> int:
    """Write the log up to its last checkpoint, with all its messages, into the new folder FOLDER.

    If the root file has a policy, that is the last checkpoint that its quorum of witnesses has cosigned.

    Only the checkpoint is verified here: `sealbus audit verify FOLDER` verifies the rest, at once or years later.
    """
    source = EvidenceSource(invocation=invocation, root=root, log_folder=log_folder, mirror=mirror, policies=policies)
    trusted = source.trusted_root()
    with progress_bar("exporting") as progress:
        written = asyncio.run(source.export_live(folder, trusted, progress))
    if invocation.as_json:
        print_json(
            {
                "folder": str(folder),
                "entries": written.entries,
                "following": written.following,
                "policies": written.policies,
                "whole": written.whole,
            }
        )
    else:
        note(f"{folder}: {written.entries} entries, {written.policies} policy bundles")
        if written.following:
            note(f"{written.following} entries follow that the quorum has not cosigned")
    for path in written.missing_policies:
        note(f"{path} is named in the log but no longer in the notary's folder")
    if written.missing_count:
        named = ", ".join(f"#{sequence}" for sequence in written.missing)
        note(f"{written.missing_count} messages of the log are no longer in the stream: {named}")
    return 0 if written.whole else 4


@click.command("root")
@click.option("--key", "keys", multiple=True, help="Verifier key of the log; may be repeated.")
@click.option("--policy", default=None, type=PATH, metavar="FILE",
              help="Policy of witnesses (C2SP tlog-policy), whose quorum has to have cosigned the log.")  # fmt: skip
@click.option(
    "--origin", default=None, help="Origin of the log; by default that of the settings, or the name of the first key."
)
@click.option(
    "--notary", "notaries", multiple=True, help="SPIFFE ID of a notary; by default that of the agent `notary`."
)
@click.option("--checkpoint", "checkpoints", multiple=True, type=PATH, metavar="FILE",
              help="A checkpoint held by another party; may be repeated.")  # fmt: skip
@log_folder_option()
@config_option
def root_file(
    keys: tuple[str, ...],
    policy: Path | None,
    origin: str | None,
    notaries: tuple[str, ...],
    checkpoints: tuple[Path, ...],
    log_folder: Path | None,
    config: str | None,
) -> None:
    """Print the root file of this deployment's log, to be kept apart from every export.

    This trusts the notary's folder as it is now: run it once, when the log begins. The first trust bundle is taken from the
    log itself; everything else comes from the settings and the options.
    """
    from sealbus.agents.evidence.trust_root import make_root, read_policy
    from sealbus.agents.runtime.settings.settings import load_settings

    root = make_root(
        load_settings(config).for_command(),
        keys=keys,
        origin=origin,
        notaries=notaries,
        checkpoints=checkpoints,
        folder=log_folder,
        policy=read_policy(policy) if policy is not None else None,
    )
    click.echo(root.encode().decode(), nl=False)
