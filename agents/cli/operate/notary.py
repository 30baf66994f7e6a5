"""`sealbus notary keygen|show|hold`: keys of a log, its last checkpoint, and checkpoints held for other logs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json

__all__ = ["command"]


@click.group("notary")
def command() -> None:
    """Make keys of a log, and hold checkpoints of other logs."""


@command.command("keygen")
@click.argument("origin")
@click.argument("file", type=click.Path(path_type=Path))
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
@click.option("--last", required=True, type=click.IntRange(0), metavar="N",
              help="The last sequence of the restored stream, as `sealbus restore` says.")  # fmt: skip
@config_option
@as_option("operator")
@json_option
def restored(last: int, config: str | None, as_name: str, as_json: bool) -> None:
    """Say that the stream of the log was restored from a backup, so that the notary goes on over it.

    Run it where the notary's folder and key are, before the notary starts. It signs with the log's key, under your SPIFFE ID,
    when the stream was created before and now, and where it ended. That becomes an entry of the log: whoever verifies it sees
    it, and which messages had been logged that are not there any more.
    """
    asyncio.run(_restored(last, config, as_name, as_json=as_json))


async def _restored(last: int, config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.agents.control.notary.log.folder_store import FolderStore
    from sealbus.agents.control.notary.restored_stream import say_restored
    from sealbus.agents.control.notary.role import notary_options
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.nats.api import existing_stream
    from sealbus.bus.ports import wall_clock
    from sealbus.envelopes.errors import ConfigurationError

    settings = load_settings(config).for_command()
    table = settings.control.notary
    options = notary_options(table)
    if table.folder is None:
        raise ConfigurationError("control.notary.folder is not set: it names where the log is kept")
    folder = table.folder
    async with open_connection(as_name, settings) as (identity, connection):
        stream = await existing_stream(connection.jetstream, table.stream)
        one = await asyncio.to_thread(
            lambda: say_restored(
                FolderStore(folder),
                stream,
                origin=options.plan.origin,
                signers=options.signers,
                last=last,
                by=identity.spiffe_id,
                now=wall_clock(),
            )
        )
    if as_json:
        print_json(
            {"before": one.before, "created": one.created, "last": one.last, "by": one.by.value, "time": one.time}
        )
    else:
        note(f"{table.stream}, restored up to {one.last} by {one.by}: the log goes on over it when the notary starts")


@command.command("show")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
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
    found = signed.checkpoint
    check_tiles(found.size, found.root, tile_reader(store.get))
    if as_json:
        print_json({"origin": found.origin, "size": found.size, "root": found.root.hex()})
    else:
        click.echo(signed.note.decode(), nl=False)


@command.command("hold")
@click.argument("log", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", "keys", multiple=True, required=True, help="Verifier key of that log; may be repeated.")
@click.option("--origin", help="Origin of that log; by default the name of its first key.")
@json_option
def hold(log: Path, folder: Path, keys: tuple[str, ...], origin: str | None, as_json: bool) -> None:
    """Keep the checkpoint of another LOG (a folder of its tiles) in FOLDER if it extends the one held there."""
    from sealbus.agents.control.notary.keys import CheckpointHolder
    from sealbus.agents.control.notary.log.folder_store import FolderStore
    from sealbus.agents.control.notary.log.store import CHECKPOINT
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.log.note import NoteVerifier
    from sealbus.envelopes.log.tiles import tile_reader

    verifiers, store = [NoteVerifier.parse(key) for key in keys], FolderStore(log)
    found = store.get(CHECKPOINT)
    if found is None:
        raise ConfigurationError(f"{log} holds no checkpoint")
    holder = CheckpointHolder(folder, origin=origin or verifiers[0].name, verifiers=verifiers)
    held = holder.hold_from(found, tile_reader(store.get)).checkpoint
    if as_json:
        print_json({"origin": held.origin, "size": held.size, "root": held.root.hex()})
    else:
        note(f"{held.origin}: {held.size} entries held")
