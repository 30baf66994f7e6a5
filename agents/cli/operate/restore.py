"""`sealbus restore DIR` and `sealbus restore --check`: restore a backup, and prove that clients may be let in."""

from __future__ import annotations

from pathlib import Path

import click

from sealbus.agents.cli.operate.backup import log_option, named_log
from sealbus.agents.cli.options import FOLDER, Invocation, invocation_options
from sealbus.agents.cli.output import note, print_json


@click.command("restore")
@click.argument("folder", required=False, type=FOLDER)
@log_option
@click.option("--keys", is_flag=True, help="Also restore the private keys in the backup that are missing here.")
@click.option("--lose", default=0, type=click.IntRange(0), metavar="N",
              help="Go on without the N records that the log here has after the backup's last.")  # fmt: skip
@click.option(
    "--check",
    is_flag=True,
    help="After the notary was started: prove that copies are refused, and waiting messages are not.",
)
@click.option("--within", default=30.0, type=click.FloatRange(0), show_default=True, metavar="SECONDS",
              help="With --check: how long to wait for the notary.")  # fmt: skip
@invocation_options("backup")
async def command(
    folder: Path | None,
    log_folder: Path | None,
    keys: bool,
    without_log: bool,
    lose: int,
    check: bool,
    within: float,
    invocation: Invocation,
) -> None:
    """Restore the backup in FOLDER into a server without streams, before anything else is connected to it.

    Everything is validated first. If anything fails, restored streams are removed. Afterwards stop nats-server, run `sync`
    there, and start it again: otherwise it does not know which messages it had. Then run `sealbus notary restored`, start the
    notary, run --check, and only then let clients in.
    """
    if (folder is None) is not check:
        raise click.UsageError("give either a FOLDER or --check")
    if folder is None:
        await _check(invocation, within=within)
        return
    from sealbus.agents.backup.restore import restore_backup
    from sealbus.agents.runtime.open import open_connection

    settings = invocation.settings()
    log = named_log(log_folder, settings, without_log=without_log)
    async with open_connection(invocation.as_name, settings) as (_, connection):
        done = await restore_backup(folder, connection, settings, log=log, keys=keys, lose=lose)
    if invocation.as_json:
        print_json(
            {
                "streams": [
                    {"name": stream.name, "messages": stream.messages, "last": stream.last} for stream in done.streams
                ],
                "records": done.records,
                "lost": done.lost,
                "log": done.log,
                "keys": done.keys,
                "signed": bool(done.manifest.note),
            }
        )
        return
    for stream in done.streams:
        click.echo(f"{stream.name}: {stream.messages} messages, to sequence {stream.last}")
    if done.log:
        click.echo(f"log: {done.log}")
    if any(stream.config.get("num_replicas", 1) != 1 for stream in done.streams):
        note("next: wait until every nats-server has all streams: /healthz of each is 503 until then; after that,")
    note(
        "next: stop nats-server, run `sync` there, and start it again; on the notary's machine, before the notary starts,"
    )
    note(f"      `sealbus notary restored {folder}`; start the notary, `sealbus restore --check`; then let clients in")
    if not done.manifest.note:
        note("the backup is not signed: messages that wait in it stay refused")


async def _check(invocation: Invocation, *, within: float) -> None:
    from sealbus.agents.backup.restore import check_copies
    from sealbus.agents.backup.restored_parts import check_waiting
    from sealbus.agents.runtime.open import open_connection, open_key_book
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.bus.streams.key_book import nothing_restored
    from sealbus.envelopes.errors import BackupRefused

    settings = invocation.settings()
    async with open_connection(invocation.as_name, settings) as (identity, connection):
        copies = await check_copies(connection)
        book = open_key_book(settings, identity, NatsTransport(connection)) or nothing_restored
        waiting = await check_waiting(connection.jetstream, book, within=within)
    if invocation.as_json:
        print_json(
            {
                "refused": [copy.stream for copy in copies],
                "waiting": [
                    {"stream": stream.stream, "last": stream.last, "counts": stream.counts} for stream in waiting
                ],
            }
        )
    else:
        for message in copies:
            click.echo(f"{message.stream}: a copy of its last message is refused")
        if not copies:
            click.echo("no message is young enough for its copy to be accepted")
        for stream in waiting:
            state = "counts" if stream.counts else "stays refused: no notary says that this stream was restored"
            click.echo(f"{stream.stream}: the restored part, up to sequence {stream.last}, {state}")
    if refused := [stream.stream for stream in waiting if not stream.counts]:
        raise BackupRefused(
            f"messages that wait in {', '.join(refused)} stay refused: "
            "run `sealbus notary restored FOLDER`, and start the notary"
        )
