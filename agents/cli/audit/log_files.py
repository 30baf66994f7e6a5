"""`sealbus audit fsck` and `sealbus audit mirror`: check the files of a log, and copy a log from where it is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.audit.source import read_root
from sealbus.agents.cli.audit.verify import findings_text, show_finding
from sealbus.agents.cli.options import PATH, json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.evidence.fsck import LogCheck

_FOUND = 4
_root_option = click.option(
    "--root", "root", required=True, type=PATH, metavar="FILE", help="From another source: the log's keys and policy."
)
_hashes_option = click.option(
    "--hashes-only", is_flag=True, help="Without entries and places, for a log that does not show them."
)


@click.command("fsck")
@click.argument("source", metavar="FOLDER|URL")
@_root_option
@_hashes_option
@json_option
def fsck(source: str, root: Path, hashes_only: bool, as_json: bool) -> None:
    """Check the files of a log in FOLDER, or as it is served at URL, against its checkpoint.

    Every tile has to follow from the checkpoint's root, and every entry from the tiles. The checkpoint has to be signed as
    the root file says, and cosigned by the quorum of its policy. Findings are what is missing, altered, or beyond the
    checkpoint. The messages of the stream are not read: `audit verify` does that.

    Exit code 4 with any finding.
    """
    from sealbus.agents.evidence.files import FolderFiles
    from sealbus.agents.evidence.fsck import check_log
    from sealbus.agents.evidence.served_log import is_address, opened_log
    from sealbus.envelopes.limits import DEFAULT_LIMITS

    trusted = read_root(root)
    if is_address(source):
        with opened_log(source) as get:
            report = check_log(get, trusted, entries=not hashes_only)
    else:
        files = FolderFiles(Path(source))
        report = check_log(
            lambda path: files.read(path, DEFAULT_LIMITS.note_bytes),
            trusted,
            paths=files.paths(),
            entries=not hashes_only,
        )
    _show(report, as_json=as_json)
    if not report.passed:
        raise SystemExit(_FOUND)


@click.command("mirror")
@click.argument("address", metavar="URL")
@click.argument("folder", type=PATH)
@_root_option
@_hashes_option
@json_option
def mirror(address: str, folder: Path, root: Path, hashes_only: bool, as_json: bool) -> None:
    """Copy the log that is served at URL into FOLDER, or bring the copy there up to date.

    The log has to extend the copy. `audit fsck FOLDER` checks the copy, and `audit verify --live --log FOLDER` compares it
    with the stream. The role `log` can serve it.
    """
    from sealbus.agents.evidence.served_log import copy_log, is_address, opened_log

    if not is_address(address):
        raise click.UsageError("URL begins with https:// or http://")
    trusted = read_root(root)
    with opened_log(address) as get:
        checkpoint = copy_log(get, folder, trusted, entries=not hashes_only)
    if as_json:
        print_json({"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()})
    else:
        note(f"{checkpoint.origin}: {checkpoint.size} entries copied")


def _show(report: LogCheck, *, as_json: bool) -> None:
    for finding in report.findings:
        show_finding(finding, as_json=as_json)
    checkpoint = report.checkpoint
    if as_json:
        print_json(
            {
                "kind": "report",
                "passed": report.passed,
                "findings": len(report.findings),
                "size": checkpoint.size if checkpoint is not None else 0,
                "root": checkpoint.root.hex() if checkpoint is not None else "",
                "tiles": report.tiles,
                "cosigned": report.cosigned,
                "cosigners": list(report.cosigners),
            }
        )
        return
    if checkpoint is not None:
        note(f"{checkpoint.size} entries, {report.tiles} tiles")
    if report.cosigners:
        note(f"cosigned at {report.cosigned} by {', '.join(map(printable, report.cosigners))}")
    click.echo("verified" if report.passed else f"NOT VERIFIED: {findings_text(len(report.findings))}")
