"""The source that evidence commands read: an exported folder, or a temporary export of the running deployment."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealbus.agents.cli.options import as_option, config_option
from sealbus.agents.cli.output import note

if TYPE_CHECKING:
    from sealbus.agents.evidence.export import Written
    from sealbus.agents.evidence.files import FolderFiles
    from sealbus.envelopes.export.trust_root import Root

__all__ = ["export_live", "opened_source", "read_root", "source_options", "trusted_root"]

F = TypeVar("F", bound=Callable[..., Any])


def source_options(function: F) -> F:
    """Add `--export`, `--root`, `--log`, `--config` and `--as`."""
    for option in (
        as_option("operator"),
        config_option,
        click.option(
            "--log",
            "log_folder",
            default=None,
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="The folder in which the notary keeps the log, without --export.",
        ),
        click.option(
            "--export",
            "export",
            default=None,
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Read this export; by default the running deployment.",
        ),
        root_option,
    ):
        function = option(function)
    return function


def root_option(function: F) -> F:
    """Add `--root FILE`."""
    return click.option(
        "--root",
        "root",
        default=None,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="From another source: the log's keys, its first trust bundle, checkpoints that others hold. "
        "Needed for exports; without it, a running deployment's own settings are trusted.",
    )(function)


def trusted_root(path: Path | None, *, live: bool, log_folder: Path | None, config: str | None) -> Root:
    """Return the root file at `path`; without one and if `live`, the root given by the deployment's own settings.

    Raises `UsageError` for an export without a root file: it would vouch for itself.
    """
    if path is not None:
        return read_root(path)
    if not live:
        raise click.UsageError("give --root FILE: an export cannot vouch for itself")
    from sealbus.agents.control.notary.keys import load_signers
    from sealbus.agents.evidence.trust_root import make_root
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.envelopes.errors import ConfigurationError

    settings = load_settings(config).for_command()
    table = settings.control.notary
    if table.origin is None:
        raise ConfigurationError("control.notary.origin is not set: give --root FILE")
    note("no --root FILE: the deployment's own settings and keys are trusted")
    keys = [signer.verifier.text for signer in load_signers(table.keys, table.origin)]
    return make_root(settings, keys=keys, folder=log_folder)


def read_root(path: Path) -> Root:
    """Return the root file at `path`; raise `ConfigurationError` if it cannot be read or is not a root file."""
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.export.trust_root import Root

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    return Root.parse(data)


@contextmanager
def opened_source(
    export: Path | None, log_folder: Path | None, config: str | None, as_name: str, root: Root
) -> Iterator[FolderFiles]:
    """Open the files of `export` or, if that is None, of an export made now and removed afterwards."""
    from sealbus.agents.evidence.files import FolderFiles

    if export is not None:
        yield FolderFiles(export)
        return
    with tempfile.TemporaryDirectory(prefix="sealbus-export-") as folder:
        path = Path(folder) / "export"
        asyncio.run(export_live(path, log_folder, config, as_name, root))
        yield FolderFiles(path)


async def export_live(
    folder: Path,
    log_folder: Path | None,
    config: str | None,
    as_name: str,
    root: Root,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Written:
    """Export the running deployment's log into `folder` under the identity `as_name`."""
    from sealbus.agents.evidence.export import export_log, log_files
    from sealbus.agents.evidence.files import LogPlace
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.nats.transport import NatsTransport

    settings = load_settings(config).for_command()
    place = LogPlace.of(settings, log_folder)
    async with open_connection(as_name, settings) as (_, connection):
        return await export_log(
            folder,
            get=log_files(place.folder),
            transport=NatsTransport(connection),
            root=root,
            stream=place.stream,
            previous=place.previous,
            progress=progress,
        )
