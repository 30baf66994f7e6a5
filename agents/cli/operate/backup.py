"""`sealbus backup DIR`: a backup of a running deployment, in a new folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json

__all__ = ["command", "log_option"]


F = TypeVar("F", bound=Callable[..., Any])


def log_option(function: F) -> F:
    """Add `--log DIR` and `--without-log`."""
    function = click.option("--without-log", is_flag=True, help="The notary's log is not on this machine.")(function)
    return click.option(
        "--log",
        "log_folder",
        default=None,
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The folder in which the notary keeps the log; by default that of the settings.",
    )(function)


@click.command("backup")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@log_option
@click.option(
    "--keys", is_flag=True, help="Also the private keys that the settings name. Keep such a backup as these keys."
)
@config_option
@as_option("backup")
@json_option
def command(
    folder: Path,
    log_folder: Path | None,
    keys: bool,
    without_log: bool,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Write a backup of everything into FOLDER, which must be new or empty: all streams, and the notary's log.

    The deployment goes on meanwhile. The backup ends with the record that AUDIT ended with when it was taken, last of all.
    """
    asyncio.run(_backup(folder, log_folder, config, as_name, without_log=without_log, keys=keys, as_json=as_json))


async def _backup(
    folder: Path, log: Path | None, config: str | None, as_name: str, *, without_log: bool, keys: bool, as_json: bool
) -> None:
    from sealbus.agents.backup.backup import take_backup
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.settings.settings import load_settings

    settings = load_settings(config).for_command()
    kept = None if without_log else log or settings.control.notary.folder
    if kept is None and not without_log:
        raise click.UsageError("control.notary.folder is not set: give --log DIR, or --without-log")
    async with open_connection(as_name, settings) as (_, connection):
        taken = await take_backup(folder, connection, settings, log=kept, keys=keys)
    size = sum(one.size for one in taken.files)
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "bytes": size,
                "log_last": taken.log_last,
                "signed": bool(taken.note),
                "streams": [
                    {"name": one.name, "messages": one.messages, "first": one.first, "last": one.last}
                    for one in taken.streams
                ],
            }
        )
        return
    for one in taken.streams:
        click.echo(f"{one.name}: {one.messages} messages, to sequence {one.last}")
    note(f"{len(taken.files)} files, {size} bytes in {folder}")
    if not taken.note:
        note("not signed, as the log's key is not here: after a restore, what waits now stays refused")
