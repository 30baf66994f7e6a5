"""The source of evidence for commands: an exported folder, or a temporary export of the running deployment."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealbus.agents.cli.options import EXISTING_FOLDER, PATH, Invocation, invocation_options, log_folder_option
from sealbus.agents.cli.output import note
from sealbus.agents.files import file_errors

if TYPE_CHECKING:
    from sealbus.agents.evidence.export import Written
    from sealbus.agents.evidence.files import FolderFiles
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.nats.connection.connection import Connection
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
    mirror: bool = False
    """Whether to read the mirror of AUDIT in this region, and make the log from it."""
    policies: Path | None = None
    """A copy of the notary's folder of policies, which no stream holds."""

    def root_file(self) -> Root:
        """Return the root in the file `root`. Raises as `read_root` does, and `UsageError` without a file."""
        if self.root is None:
            raise click.UsageError("give --root FILE: neither an export nor a mirror can vouch for itself")
        return read_root(self.root)

    def trusted_root(self) -> Root:
        """Return the root in the file `root`. For a running deployment without that file, its own settings make the root."""
        if self.mirror and self.log_folder is not None:
            raise click.UsageError("give either --mirror or --log: the log is made from the mirror")
        if self.root is not None or self.export is not None or self.mirror:
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
        from sealbus.agents.evidence.export import export_log, log_files, with_policies
        from sealbus.agents.evidence.files import LogPlace
        from sealbus.agents.runtime.open import open_connection
        from sealbus.bus.nats.transport import NatsTransport

        settings = self.invocation.settings()
        async with AsyncExitStack() as stack:
            _, connection = await stack.enter_async_context(open_connection(self.invocation.as_name, settings))
            copy, chosen = None, self.log_folder
            if self.mirror:
                chosen = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sealbus-mirror-")))
                copy = await _log_of_mirror(chosen, settings, connection, root)
            place = LogPlace.of(settings, chosen)
            get = log_files(place.folder)
            return await export_log(
                folder,
                get=with_policies(get, self.policies) if self.policies is not None else get,
                transport=NatsTransport(connection),
                root=root,
                stream=place.stream,
                copy=copy,
                previous=place.previous,
                progress=progress,
            )


async def _log_of_mirror(folder: Path, settings: Settings, connection: Connection, root: Root) -> str:
    """Make the log from the mirror into `folder`, say how far the mirror has come, and return the mirror's name."""
    from sealbus.agents.evidence.files import LogPlace
    from sealbus.agents.evidence.mirrored_log import make_log
    from sealbus.agents.runtime.open import mirror_of
    from sealbus.bus.audit.mirror import describe_mirror, mirrored_since
    from sealbus.bus.nats.api import existing_stream
    from sealbus.bus.nats.transport import NatsTransport

    plan, place = mirror_of(settings), LogPlace.of(settings, folder)
    mirror = await existing_stream(connection.jetstream, plan.name)
    note(describe_mirror(mirror))
    made = await make_log(
        folder,
        transport=NatsTransport(connection),
        mirror=plan.name,
        created=mirrored_since(mirror),
        root=root,
        stream=plan.stream,
        previous=place.previous,
    )
    note(f"log of {made.size} entries made from the mirror, up to #{made.last}")
    if made.beyond:
        note(f"{made.beyond} messages after it have come without a checkpoint: no log vouches for them")
    return plan.name


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


def mirror_options(function: F) -> F:
    """Add `--mirror` and `--policies`."""
    function = click.option(
        "--policies",
        default=None,
        type=EXISTING_FOLDER,
        metavar="DIR",
        help="With --mirror: a copy of the notary's folder `policies`, which no stream holds.",
    )(function)
    return click.option(
        "--mirror",
        is_flag=True,
        help="Read the mirror of AUDIT in this region alone, and make the log from it. Needs --root.",
    )(function)


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
