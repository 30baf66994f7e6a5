"""`sealbus audit receipt ID` and `receipt verify FILE [COSE]`: one file that proves a record on its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.audit.source import EvidenceSource, source_options
from sealbus.agents.cli.options import PATH
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.files import file_errors
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.envelopes.export.receipt import ProvenRecord
    from sealbus.envelopes.export.trust_root import Root


@click.command("receipt")
@click.argument("words", nargs=-1, required=True, metavar="ID | verify FILE [COSE]")
@click.option("--output", default=None, type=PATH, metavar="FILE", help="Write it to FILE.")
@click.option(
    "--cose",
    default=None,
    type=PATH,
    metavar="FILE",
    help="Also write a COSE receipt (RFC 9942) of its entry to FILE, signed by a key of the log.",
)
@click.option(
    "--key",
    default=None,
    type=PATH,
    metavar="FILE",
    help="With --cose: the log's key; by default the first of control.notary.keys.",
)
@source_options
def receipt(
    words: tuple[str, ...], output: Path | None, cose: Path | None, key: Path | None, source: EvidenceSource
) -> None:
    """Print the receipt of the record about message ID (32 hex digits) or of the record ID (64), or verify a receipt.

    A message delivered several times has several decisions: the receipt is that of the last one. Name a record for another.
    With COSE, a COSE receipt is verified as well, which has to be of the same entry and checkpoint.
    """
    if key is not None and cose is None:
        raise click.UsageError("--key is for --cose")
    match words:
        case ("verify", file, *more) if len(more) <= 1 and cose is None:
            _verify(Path(file), source.root_file(), *map(Path, more), as_json=source.invocation.as_json)
        case (wanted,) if wanted != "verify":
            root = source.trusted_root()
            data = _make(wanted, source, root)
            if cose is not None:
                _save(cose, _cose_receipt(data, root, key, source))
            if output is None:
                click.echo(data.decode(), nl=False)
            else:
                _save(output, data)
        case _:
            raise click.UsageError("give an ID, or verify and a FILE")


def _save(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    note(f"{file}: {len(data)} bytes")


def _make(wanted: str, source: EvidenceSource, root: Root) -> bytes:
    from sealbus.agents.evidence.lookup import identifier, look_up
    from sealbus.agents.evidence.receipt import make_receipt
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.records.decision import DecisionRecord

    name = identifier(wanted)
    with source.opened(root) as files:
        lookup = look_up(files, root, name)
        named = [record for record in lookup.found if record.leaf == name]
        chosen = named or [record for record in lookup.found if isinstance(record.record, DecisionRecord)]
        if not chosen:
            raise ConfigurationError(f"this log has no record about {wanted}")
        return make_receipt(files, root, lookup, chosen[-1])


def _cose_receipt(data: bytes, root: Root, key: Path | None, source: EvidenceSource) -> bytes:
    """Return the COSE receipt for a receipt that verifies, signed by the key in the file `key` or in the settings."""
    from sealbus.agents.control.notary.keys import load_signers
    from sealbus.envelopes.errors import ConfigurationError, LogError
    from sealbus.envelopes.export.receipt import RecordReceipt, check_receipt
    from sealbus.envelopes.log.cose_receipt import sign_cose_receipt

    paths = [key] if key is not None else source.invocation.settings().control.notary.keys
    signer = load_signers(paths, root.origin)[0]
    log, leaf = RecordReceipt.parse(data).log, check_receipt(data, root).leaf
    try:
        return sign_cose_receipt(log, leaf, origin=root.origin, signer=signer).encode()
    except LogError as error:
        raise ConfigurationError(f"this key did not sign the checkpoint of the receipt: {error}") from error


def _verify(file: Path, root: Root, cose: Path | None = None, *, as_json: bool) -> None:
    from sealbus.envelopes.errors import ConfigurationError
    from sealbus.envelopes.export.receipt import check_cose_receipt, check_receipt

    with file_errors(f"{file} cannot be read"):
        data = file.read_bytes()
    also = None
    if cose is not None:
        with file_errors(f"{cose} cannot be read"):
            also = cose.read_bytes()
    from sealbus.envelopes.errors import EnvelopeError, LogError

    try:
        proven = check_receipt(data, root)
        if also is not None:
            check_cose_receipt(also, proven, root)
    except (EnvelopeError, LogError, ConfigurationError) as error:
        click.echo(printable(f"NOT VERIFIED: {error}"))
        raise SystemExit(4) from None
    if as_json:
        print_json(as_document(proven))
    else:
        for name, value in as_document(proven).items():
            click.echo(printable(f"{name + ':':<12} {value}"))
        click.echo("verified")


def as_document(proven: ProvenRecord) -> dict[str, object]:
    """Return the facts that a receipt proves, as `--json` prints them."""
    from sealbus.envelopes.records.decision import DecisionRecord

    record = proven.record
    document: dict[str, object] = {
        "kind": record.kind,
        "recorder": str(proven.recorder),
        "sequence": proven.sequence,
        "time": shown_time(proven.stored),
        "log": proven.checkpoint.origin,
        "size": proven.checkpoint.size,
    }
    if isinstance(record, DecisionRecord):
        document |= {"action": record.action, "allow": record.allow, "code": str(record.code or "")}
    if proven.decided is not None:
        document |= {
            "message": proven.decided.header.id.hex(),
            "from": str(proven.decided.header.iss),
            "chain": [str(link.iss) for link in proven.decided.chain],
            "user": proven.decided.context.sub if proven.decided.context is not None else "",
        }
    return document
