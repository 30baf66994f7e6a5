"""Makes the receipt of a record from an export, and verifies the receipt before it is returned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import cast

from sealbus.agents.evidence.files import ExportFiles
from sealbus.agents.evidence.lookup import FoundRecord, LoggedBundle, Lookup
from sealbus.envelopes.encoding.jws import split_compact
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.export.entries import check_decision, open_frame
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.receipt import (
    EarlierCheckpoint,
    RecordReceipt,
    ShownBundle,
    ShownMessage,
    check_receipt,
    show_items,
)
from sealbus.envelopes.export.trust import parse_bundle, pinned_bundles
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.receipt import Receipt
from sealbus.envelopes.log.tiles import TiledTree, TileName
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.archive import VerifiedAudit
from sealbus.envelopes.records.body import parse_evidence
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId


def make_receipt(files: ExportFiles, root: Root, lookup: Lookup, logged: FoundRecord) -> bytes:
    """Return the receipt of a record that `look_up` found.

    Raises `EnvelopeError` or `LogError` if the record, or the export around it, is not authentic: a returned receipt
    verifies.
    """
    caches, size = Caches(), lookup.checkpoint.checkpoint.size
    tree = TiledTree(size, lambda name: _tile(files, name))
    audit = open_frame(logged.frame, root, lookup.trust.archive, caches)
    shown = [*_evidence(logged, audit, root, lookup, caches), logged.item]
    message = _shown(logged.index, logged.frame, logged.items, shown)
    log = Receipt(logged.index, tree.inclusion(logged.index), lookup.checkpoint.note)
    earlier = tuple(
        EarlierCheckpoint(held, checkpoint_root, tree.consistency(held))
        for held, checkpoint_root in sorted({(signed.checkpoint.size, signed.checkpoint.root) for signed in root.held})
        if 0 < held < size
    )

    def receipt(bundles: Iterable[LoggedBundle]) -> bytes:
        vouching = []
        for index, group in groupby(bundles, lambda bundle: bundle.index):
            together = list(group)
            shown_bundle = _shown(index, together[0].frame, together[0].items, [bundle.item for bundle in together])
            vouching.append(ShownBundle(shown_bundle, tree.inclusion(index)))
        return RecordReceipt(tuple(vouching), message, log, earlier).encode()

    tokens = [message.credential.token, *_tokens(logged.items[number] for number in shown[:-1])]
    data = receipt(_leading(lookup.bundles, root, tokens))
    check_receipt(data, root)
    return data


def _leading(bundles: Sequence[LoggedBundle], root: Root, tokens: Iterable[bytes]) -> list[LoggedBundle]:
    """Return those of `bundles` that lead from `root` to the keys of `tokens`: for each key the first bundle that holds it.

    The notary's message with a bundle is opened with a key of an earlier bundle, and so on, back to a bundle that the root
    file names. So there is one message for each key that the notary has had since.
    """
    pinned: dict[tuple[str, str], LoggedBundle] = {}
    first: dict[tuple[str, str], LoggedBundle] = {}
    for bundle in bundles:
        keys = {(bundle.record.trust_domain.name, kid) for kid in parse_bundle(bundle.record).bundle.keys}
        own = len(pinned_bundles([bundle.record], root)) and _key_of(_token(bundle.frame)) in keys
        for key in keys:
            first.setdefault(key, bundle)
            if own:
                pinned.setdefault(key, bundle)
    chosen: dict[tuple[int, int], LoggedBundle] = {}
    waiting = list(tokens)
    while waiting:
        key = _key_of(waiting.pop())
        leading = pinned.get(key) or first.get(key)
        if leading is not None and (leading.index, leading.item) not in chosen:
            chosen[leading.index, leading.item] = leading
            waiting.append(_token(leading.frame))
    return [chosen[place] for place in sorted(chosen)]


def _token(frame: Frame) -> bytes:
    return parse_envelope(frame.data).credential.token


def _key_of(token: bytes) -> tuple[str, str]:
    """Return trust domain and key id of a verified JWT-SVID."""
    jws = split_compact(token)
    sub, kid = parse_object(jws.payload, depth=8)["sub"], parse_object(jws.header, depth=8)["kid"]
    return SpiffeId(cast("str", sub)).trust_domain.name, cast("str", kid)


def _tokens(evidence: Iterable[bytes]) -> list[bytes]:
    """Return the tokens of the credentials in items of evidence."""
    return [credential.token for item in evidence for credential in parse_evidence([item]).credentials.values()]


def _shown(index: int, frame: Frame, items: Sequence[bytes], shown: Sequence[int]) -> ShownMessage:
    envelope = parse_envelope(frame.data)
    return ShownMessage(
        index=index,
        sequence=frame.sequence,
        stored=frame.stored,
        header=envelope.header,
        proof=envelope.proof,
        credential=envelope.credential,
        items=show_items(items, shown),
    )


def _evidence(logged: FoundRecord, audit: VerifiedAudit, root: Root, lookup: Lookup, caches: Caches) -> list[int]:
    """Return the numbers of the evidence items that a decision depends on."""
    record = logged.record
    if not isinstance(record, DecisionRecord):
        return []
    decided = check_decision(record, audit, root, lookup.trust.archive, caches)
    names = {link.crd for link in decided.chain} | {link.digest for link in decided.chain[:-1]}
    if decided.header.ctx is not None and decided.context is not None:
        names |= {decided.header.ctx, decided.context.crd}
    numbers = []
    for number, item in enumerate(logged.items[: logged.evidence]):
        evidence = parse_evidence([item])
        if not names.isdisjoint([*evidence.credentials, *evidence.contexts, *evidence.ancestors]):
            numbers.append(number)
    return numbers


def _tile(files: ExportFiles, name: TileName) -> bytes:
    data = files.read(name.path, name.width * 32)
    if data is None:
        raise LogError(Code.BAD_TILE, f"{name.path} is missing")
    return data
