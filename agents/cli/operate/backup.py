"""`sealbus backup DIR`: a backup of a running deployment, in a new folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealbus.agents.cli.options import FOLDER, Invocation, invocation_options, log_folder_option
from sealbus.agents.cli.output import note, print_json

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def log_option(function: F) -> F:
    """Add `--log DIR` and `--without-log`."""
    function = click.option("--without-log", is_flag=True, help="The notary's log is not on this machine.")(function)
    return log_folder_option("; by default that of the settings")(function)


def named_log(folder: Path | None, settings: Settings, *, without_log: bool) -> Path | None:
    """Return the log's folder, from `--log` or the settings; None with `--without-log`. Raises `UsageError` without any."""
    log = folder or settings.control.notary.folder
    if log is None and not without_log:
        raise click.UsageError("control.notary.folder is not set: give --log DIR, or --without-log")
    return None if without_log else log


@click.command("backup")
@click.argument("folder", type=FOLDER)
@log_option
@click.option(
    "--keys", is_flag=True, help="Also the private keys that the settings name. Keep such a backup as these keys."
)
@invocation_options("backup")
async def command(
    folder: Path,
    log_folder: Path | None,
    keys: bool,
    without_log: bool,
    invocation: Invocation,
) -> None:
    """Write a backup of everything into FOLDER, which must be new or empty: all streams, and the notary's log.

    The deployment keeps running. AUDIT is copied last, up to the record with which it ends at that time.
    """
    from sealbus.agents.backup.backup import take_backup
    from sealbus.agents.runtime.open import open_connection

    settings = invocation.settings()
    log = named_log(log_folder, settings, without_log=without_log)
    async with open_connection(invocation.as_name, settings) as (_, connection):
        manifest = await take_backup(folder, connection, settings, log=log, keys=keys)
    size = sum(file.size for file in manifest.files)
    if invocation.as_json:
        print_json(
            {
                "folder": str(folder),
                "bytes": size,
                "log_last": manifest.log_last,
                "signed": bool(manifest.note),
                "streams": [
                    {"name": stream.name, "messages": stream.messages, "first": stream.first, "last": stream.last}
                    for stream in manifest.streams
                ],
            }
        )
        return
    for stream in manifest.streams:
        click.echo(f"{stream.name}: {stream.messages} messages, to sequence {stream.last}")
    note(f"{len(manifest.files)} files, {size} bytes in {folder}")
    if not manifest.note:
        note("not signed, because the log's key is not here: after a restore, messages that wait now stay refused")
