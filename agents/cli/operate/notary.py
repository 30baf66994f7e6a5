"""`sealbus notary keygen|show|hold`: keys of a log, its last checkpoint, and checkpoints held for other logs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from sealbus.agents.cli.options import EXISTING_FOLDER, PATH, Invocation, invocation_options, json_option
from sealbus.agents.cli.output import note, print_json


@click.group("notary")
def command() -> None:
    """Make keys of a log, and hold checkpoints of other logs."""


@command.command("keygen")
@click.argument("origin")
@click.argument("file", type=PATH)
@json_option
def keygen(origin: str, file: Path, as_json: bool) -> None:
    """Make a key for the log ORIGIN in FILE (mode 0600), and print its verifier key.

    Give the verifier key to everyone who verifies the log. To replace a key, list the new file after the old one in
    control.notary.keys until all verifiers know it.
    """
    from sealbus.agents.control.notary.keys import make_key_file

    verifier = make_key_file(file, origin).verifier.text
    if as_json:
        print_json({"origin": origin, "file": str(file), "verifier": verifier})
    else:
        click.echo(verifier)


@command.command("restored")
@click.argument("folder", required=False, type=EXISTING_FOLDER)
@click.option("--last", type=click.IntRange(0), metavar="N",
              help="The last restored sequence of the log's stream, where there is no folder of a backup.")  # fmt: skip
@click.option("--waiting", type=click.Choice(["handle", "refuse"]), default=None,
              help="Whether messages that waited in the backup are handled; needed if records were lost.")  # fmt: skip
@invocation_options("operator")
async def restored(folder: Path | None, last: int | None, waiting: str | None, invocation: Invocation) -> None:
    """Tell the notary that the streams were restored from the backup in FOLDER, so that the log continues over them.

    Run it where the notary's folder and key are, before the notary starts. The log's key signs a note under your SPIFFE ID.
    The note says which streams were created anew, when, and where the restored part ends. It becomes an entry of the log.
    Verification shows the entry, with the logged records that are gone.

    Only after that agents handle messages that waited in the backup, and only if the log's key had signed the backup. If
    records were lost, some of these messages may have been handled after the backup: choose with --waiting.
    """
    if (folder is None) is (last is None):
        raise click.UsageError("give either the FOLDER of the backup or --last")
    from sealbus.agents.backup.files import log_end
    from sealbus.agents.backup.manifest import Manifest
    from sealbus.agents.backup.restored_parts import last_restored, restored_streams
    from sealbus.agents.control.notary.log.folder_store import FolderStore
    from sealbus.agents.control.notary.restored_stream import RestoredBackup, record_restoration
    from sealbus.agents.control.notary.role import notary_options
    from sealbus.agents.runtime.open import open_connection
    from sealbus.bus.clocks import wall_clock
    from sealbus.bus.nats.api import existing_stream
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.message.restored import RestoredStream

    settings = invocation.settings()
    table = settings.control.notary
    options = notary_options(table)
    if table.folder is None:
        raise ConfigurationError("control.notary.folder is not set: it names where the log is kept")
    log = table.folder
    manifest = await asyncio.to_thread(Manifest.read, folder) if folder is not None else None
    if manifest is not None:
        manifest.check_of(settings.trust_domain.name, options.plan.origin)
        if manifest.note:
            manifest.check_signed([signer.verifier for signer in options.signers])
    async with open_connection(invocation.as_name, settings) as (identity, connection):
        stream = await existing_stream(connection.jetstream, table.stream)
        if manifest is not None and any(saved.created == stream.created for saved in manifest.streams if saved.current):
            raise ConfigurationError(
                f"{table.stream} is the stream of the backup itself, not a restored one: give --last"
            )
        upto = last if last is not None else await last_restored(connection.jetstream, stream)
        lost = max(0, await asyncio.to_thread(log_end, log) - upto)
        streams: list[RestoredStream] = []
        if manifest is not None and manifest.note and waiting != "refuse":
            if lost and waiting is None:
                raise ConfigurationError(
                    f"{lost} records after the backup's last are lost: messages that waited may have been handled since. "
                    "Give --waiting handle to have them handled again, or --waiting refuse"
                )
            streams = await restored_streams(connection.jetstream, manifest)
        restoration = await asyncio.to_thread(
            lambda: record_restoration(
                FolderStore(log),
                stream,
                origin=options.plan.origin,
                signers=options.signers,
                last=upto,
                by=identity.spiffe_id,
                now=wall_clock(),
                backup=RestoredBackup(manifest.hash, tuple(streams)) if manifest is not None and streams else None,
            )
        )
    if invocation.as_json:
        print_json(
            {
                "before": restoration.before,
                "created": restoration.created,
                "last": restoration.last,
                "by": restoration.by.value,
                "time": restoration.time,
                "manifest": restoration.manifest,
                "streams": [
                    {"name": row.stream, "before": row.before, "created": row.created, "last": row.last}
                    for row in restoration.streams
                ],
            }
        )
        return
    note(
        f"{table.stream}, restored up to {restoration.last} by {restoration.by}: "
        "the log continues over it when the notary starts"
    )
    if restoration.streams:
        note("messages that waited in the backup are handled once the notary has started")
    elif waiting != "refuse":
        reason = "no backup is named" if manifest is None else "the backup's manifest is not signed"
        note(f"messages that waited in the backup stay refused: {reason}")


@command.command("show")
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--key", "keys", multiple=True, required=True, help="Verifier key of the log; may be repeated.")
@click.option("--origin", help="Origin of the log; by default the name of its first key.")
@json_option
def show(folder: Path, keys: tuple[str, ...], origin: str | None, as_json: bool) -> None:
    """Check all tiles of the log in FOLDER against its checkpoint, and print the checkpoint. The stream is not read."""
    from sealbus.agents.control.notary.log.folder_store import FolderStore
    from sealbus.agents.control.notary.log.ledger import stored_checkpoint
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.log.note import NoteVerifier
    from sealbus.envelopes.log.tiles import tile_reader
    from sealbus.envelopes.log.tree_builder import check_tiles

    verifiers, store = [NoteVerifier.parse(key) for key in keys], FolderStore(folder)
    signed = stored_checkpoint(store, origin or verifiers[0].name, verifiers)
    if signed is None:
        raise ConfigurationError(f"{folder} holds no checkpoint")
    checkpoint = signed.checkpoint
    check_tiles(checkpoint.size, checkpoint.root, tile_reader(store.get))
    if as_json:
        print_json({"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()})
    else:
        click.echo(signed.note.decode(), nl=False)


@command.command("hold")
@click.argument("log", type=EXISTING_FOLDER)
@click.argument("folder", type=PATH)
@click.option("--key", "keys", multiple=True, required=True, help="Verifier key of that log; may be repeated.")
@click.option("--origin", help="Origin of that log; by default the name of its first key.")
@json_option
def hold(log: Path, folder: Path, keys: tuple[str, ...], origin: str | None, as_json: bool) -> None:
    """Keep the checkpoint of another LOG (a folder of its tiles) in FOLDER if it extends the one held there."""
    from sealbus.agents.control.notary.keys import CheckpointHolder
    from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.log.note import NoteVerifier, keep_signatures
    from sealbus.envelopes.log.tiles import tile_reader

    verifiers, store = [NoteVerifier.parse(key) for key in keys], FolderStore(log)
    published = store.get(CHECKPOINT)
    if published is None:
        raise ConfigurationError(f"{log} holds no checkpoint")
    holder = CheckpointHolder(folder, origin=origin or verifiers[0].name, verifiers=verifiers)
    # Cosignatures are left out: the root file that it goes into need not know the witnesses.
    checkpoint = holder.hold_from(keep_signatures(published, verifiers), tile_reader(store.get)).checkpoint
    if as_json:
        print_json({"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()})
    else:
        note(f"{checkpoint.origin}: {checkpoint.size} entries held")
