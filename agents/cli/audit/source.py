"""The source of evidence for commands: an exported folder, or a temporary export of the running deployment."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealbus.agents.cli.options import PATH, Invocation, invocation_options, log_folder_option
from sealbus.agents.cli.output import note
from sealbus.agents.files import file_errors

if TYPE_CHECKING:
    from sealbus.agents.evidence.export import Written
    from sealbus.agents.evidence.files import FolderFiles
    from sealbus.envelopes.export.trust_root import Root


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSource:
    """Where a command finds evidence: in the folder `export`, or in the running deployment.

    `root` is the root file. `log_folder` is the notary's folder of the running deployment, if the settings do not name it.
    """

    invocation: Invocation
    export: Path | None = None
    root: Path | None = None
    log_folder: Path | None = None

    def root_file(self) -> Root:
        """Return the root in the file `root`. Raises as `read_root` does, and `UsageError` without a file."""
        if self.root is None:
            raise click.UsageError("give --root FILE: an export cannot vouch for itself")
        return read_root(self.root)

    def trusted_root(self) -> Root:
        """Return the root in the file `root`. For a running deployment without that file, its own settings make the root."""
        if self.root is not None or self.export is not None:
            return self.root_file()
        from sealbus.agents.control.notary.keys import load_signers
        from sealbus.agents.evidence.trust_root import make_root
        from sealbus.envelopes.errors import ConfigurationError

        settings = self.invocation.settings()
        table = settings.control.notary
        if table.origin is None:
            raise ConfigurationError("control.notary.origin is not set: give --root FILE")
        note("no --root FILE: the deployment's own settings and keys are trusted")
        keys = [signer.verifier.text for signer in load_signers(table.keys, table.origin)]
        return make_root(settings, keys=keys, folder=self.log_folder)

    @contextmanager
    def opened(self, root: Root) -> Iterator[FolderFiles]:
        """Open the files of `export`, or for a running deployment the files of an export that is removed afterwards."""
        from sealbus.agents.evidence.files import FolderFiles

        if self.export is not None:
            yield FolderFiles(self.export)
            return
        with tempfile.TemporaryDirectory(prefix="sealbus-export-") as folder:
            path = Path(folder) / "export"
            asyncio.run(self.export_live(path, root))
            yield FolderFiles(path)

    async def export_live(
        self, folder: Path, root: Root, progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> Written:
        """Export the running deployment's log into `folder`."""
        from sealbus.agents.evidence.export import export_log, log_files
        from sealbus.agents.evidence.files import LogPlace
        from sealbus.agents.runtime.open import open_connection
        from sealbus.bus.nats.transport import NatsTransport

        settings = self.invocation.settings()
        place = LogPlace.of(settings, self.log_folder)
        async with open_connection(self.invocation.as_name, settings) as (_, connection):
            return await export_log(
                folder,
                get=log_files(place.folder),
                transport=NatsTransport(connection),
                root=root,
                stream=place.stream,
                previous=place.previous,
                progress=progress,
            )


def source_options(function: Callable[..., Any]) -> Callable[..., None]:
    """Add `--root`, `--export`, `--log`, `--config`, `--as` and `--json`, which become one `EvidenceSource`, `source`."""

    @functools.wraps(function)
    def with_source(
        *, root: Path | None, export: Path | None, log_folder: Path | None, invocation: Invocation, **others: Any
    ) -> Any:
        source = EvidenceSource(invocation=invocation, export=export, root=root, log_folder=log_folder)
        return function(source=source, **others)

    command = invocation_options("operator")(with_source)
    for option in (
        log_folder_option(", without --export"),
        click.option(
            "--export",
            "export",
            default=None,
            type=PATH,
            metavar="DIR",
            help="Read this export; by default the running deployment.",
        ),
        root_option,
    ):
        command = option(command)
    return command


def root_option(function: F) -> F:
    """Add `--root FILE`."""
    return click.option(
        "--root",
        "root",
        default=None,
        type=PATH,
        metavar="FILE",
        help="From another source: the log's keys, its first trust bundle, checkpoints that others hold. "
        "Needed for exports; without it, a running deployment's own settings are trusted.",
    )(function)


def read_root(path: Path) -> Root:
    """Return the root file at `path`; raise `ConfigurationError` if it cannot be read or is not a root file."""
    from sealbus.envelopes.export.trust_root import Root

    with file_errors(f"{path} cannot be read"):
        data = path.read_bytes()
    return Root.parse(data)
