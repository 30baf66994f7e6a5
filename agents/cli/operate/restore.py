"""`sealbus restore DIR` and `sealbus restore --check`: a backup into an empty server, and the proof that it may be opened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from sealbus.agents.cli.operate.backup import log_option
from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json

__all__ = ["command"]


@click.command("restore")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@log_option
@click.option("--keys", is_flag=True, help="Also the private keys in the backup, where they are missing.")
@click.option("--lose", default=0, type=click.IntRange(0), metavar="N",
              help="Go on without the N records that the log here has after the backup's last.")  # fmt: skip
@click.option("--check", is_flag=True, help="After nats-server was started again: prove that it refuses copies.")
@config_option
@as_option("backup")
@json_option
def command(
    folder: Path | None,
    log_folder: Path | None,
    keys: bool,
    without_log: bool,
    lose: int,
    check: bool,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Restore the backup in FOLDER into a server without streams, before anything else is connected to it.

    Everything is validated first; if anything fails, what was restored is removed. Afterwards start nats-server again, which
    otherwise does not know which messages it had, run --check, tell the notary, and only then let clients in.
    """
    if (folder is None) is not check:
        raise click.UsageError("give either a FOLDER or --check")
    if folder is None:
        asyncio.run(_check(config, as_name, as_json=as_json))
    else:
        work = _restore(
            folder, log_folder, config, as_name, without_log=without_log, keys=keys, lose=lose, as_json=as_json
        )
        asyncio.run(work)


async def _restore(
    folder: Path,
    log: Path | None,
    config: str | None,
    as_name: str,
    *,
    without_log: bool,
    keys: bool,
    lose: int,
    as_json: bool,
) -> None:
    from sealbus.agents.backup.restore import restore_backup
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.settings.settings import load_settings

    settings = load_settings(config).for_command()
    kept = None if without_log else log or settings.control.notary.folder
    if kept is None and not without_log:
        raise click.UsageError("control.notary.folder is not set: give --log DIR, or --without-log")
    async with open_connection(as_name, settings) as (_, connection):
        done = await restore_backup(folder, connection, settings, log=kept, keys=keys, lose=lose)
    if as_json:
        print_json(
            {
                "streams": [{"name": one.name, "messages": one.messages, "last": one.last} for one in done.streams],
                "records": done.records,
                "lost": done.lost,
                "log": done.log,
                "keys": done.keys,
            }
        )
        return
    for one in done.streams:
        click.echo(f"{one.name}: {one.messages} messages, to sequence {one.last}")
    if done.log:
        click.echo(f"log: {done.log}")
    note("next: start nats-server again, run `sealbus restore --check`, and on the notary's machine, before it starts,")
    note(f"      `sealbus notary restored --last {done.records}`; then let clients in")


async def _check(config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.agents.backup.restore import check_copies
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.settings.settings import load_settings

    settings = load_settings(config).for_command()
    async with open_connection(as_name, settings) as (_, connection):
        asked = await check_copies(connection)
    if as_json:
        print_json({"refused": [one.stream for one in asked]})
        return
    for known in asked:
        click.echo(f"{known.stream}: a copy of its last message is refused")
    if not asked:
        click.echo("no message is young enough for its copy to be accepted")
