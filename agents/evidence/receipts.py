"""Makes the receipt of a record out of an export, and makes sure that it proves what it should before anybody has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sealbus.agents.evidence.files import ExportFiles
from sealbus.agents.evidence.lookup import FoundRecord, LoggedBundle, Lookup
from sealbus.envelopes.archive import VerifiedAudit
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.evidence import parse_evidence
from sealbus.envelopes.export.entry_reader import check_decision, open_frame
from sealbus.envelopes.export.frames import Frame
from sealbus.envelopes.export.receipt_check import check_receipt
from sealbus.envelopes.export.record_receipt import RecordReceipt, ShownBundle
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.shown_message import ShownMessage, show_items
from sealbus.envelopes.log.receipt import Receipt
from sealbus.envelopes.log.tiled_tree import TiledTree
from sealbus.envelopes.log.tiles import TileName
from sealbus.envelopes.wire import parse_envelope

__all__ = ["make_receipt"]


def make_receipt(files: ExportFiles, root: Root, lookup: Lookup, found: FoundRecord) -> bytes:
    """Return the receipt of a record that `look_up` found.

    Raises `EnvelopeError` or `LogError` if the record, or the export around it, is not authentic: nothing that does not
    verify is ever handed out.
    """
    caches, size = Caches(), lookup.checkpoint.checkpoint.size
    tree = TiledTree(size, lambda name: _tile(files, name))
    audit = open_frame(found.frame, root, lookup.trust.archive, caches)
    shown = [*_evidence(found, audit, root, lookup, caches), found.item]
    message = _shown(found.index, found.frame, found.items, shown)
    log = Receipt(found.index, tree.inclusion(found.index), lookup.checkpoint.note)

    def receipt(bundles: Sequence[LoggedBundle]) -> bytes:
        vouching = tuple(
            ShownBundle(_shown(one.index, one.frame, one.items, [one.item]), tree.inclusion(one.index))
            for one in bundles
        )
        return RecordReceipt(vouching, message, log).encode()

    return receipt(_needed(lookup.bundles, lambda chosen: check_receipt(receipt(chosen), root)))


def _needed(bundles: Sequence[LoggedBundle], check: Callable[[Sequence[LoggedBundle]], object]) -> list[LoggedBundle]:
    """Return as few of `bundles` as `check` is content with; raise what it raises if not even all of them do."""
    check(bundles)
    chosen = list(bundles)
    for one in bundles:
        fewer = [other for other in chosen if other is not one]
        try:
            check(fewer)
        except EnvelopeError:
            continue
        chosen = fewer
    return chosen


def _shown(index: int, frame: Frame, items: Sequence[bytes], shown: Sequence[int]) -> ShownMessage:
    envelope = parse_envelope(frame.data)
    return ShownMessage(
        index=index,
        sequence=frame.sequence,
        stored=frame.stored,
        header=envelope.header,
        proof=envelope.proof,
        credential=envelope.credential,
        count=len(items),
        items=show_items(items, shown),
    )


def _evidence(found: FoundRecord, audit: VerifiedAudit, root: Root, lookup: Lookup, caches: Caches) -> list[int]:
    """Return the numbers of the items that a decision rests on, and of no others."""
    record = found.record
    if not isinstance(record, DecisionRecord):
        return []
    decided = check_decision(record, audit, root, lookup.trust.archive, caches)
    names = {link.crd for link in decided.chain} | {link.digest for link in decided.chain[:-1]}
    if decided.header.ctx is not None and decided.context is not None:
        names |= {decided.header.ctx, decided.context.crd}
    numbers = []
    for number, item in enumerate(found.items[: found.evidence]):
        evidence = parse_evidence([item])
        if not names.isdisjoint([*evidence.credentials, *evidence.contexts, *evidence.ancestors]):
            numbers.append(number)
    return numbers


def _tile(files: ExportFiles, name: TileName) -> bytes:
    data = files.read(name.path, name.width * 32)
    if data is None:
        raise LogError(Code.BAD_TILE, f"{name.path} is not there")
    return data
