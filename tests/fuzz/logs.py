"""Targets: notes, checkpoints, tiles, receipts and the files of an export."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256

from fuzz.targets import Target, check_refusal
from support.memory_files import MemoryFiles
from support.vectors import load

from sealbus.agents.control.witness.submission import WitnessedLog, check_extension, open_submission
from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.export.format import encode_frame, entry_of, read_frames
from sealbus.envelopes.export.latest import check_latest
from sealbus.envelopes.export.receipt import ProvenRecord, check_cose_receipt, check_receipt
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import Checkpoint, open_checkpoint, open_strictly, parse_checkpoint
from sealbus.envelopes.log.cose_receipt import CoseReceipt, verify_cose_receipt
from sealbus.envelopes.log.cosignature import (
    CosignatureSigner,
    CosignatureType,
    CosignatureVerifier,
    verify_cosignatures,
)
from sealbus.envelopes.log.note import (
    NoteSigner,
    NoteVerifier,
    base64_text,
    check_all_signers,
    keep_signatures,
    parse_note,
    sign_note,
    verify_note,
)
from sealbus.envelopes.log.places import encode_places, parse_places
from sealbus.envelopes.log.receipt import encode_receipt, parse_receipt, verify_receipt
from sealbus.envelopes.log.restoration import open_restoration, parse_restoration
from sealbus.envelopes.log.tiles import TileName, encode_entries, parse_entries, parse_hashes
from sealbus.envelopes.log.witness_policy import WitnessPolicy, open_cosigned

_ORIGIN = "log.example.org/audit"


@cache
def _signer() -> NoteSigner:
    return NoteSigner(_ORIGIN, bytes(32))


def _keys() -> Sequence[NoteVerifier]:
    return [_signer().verifier, *map(NoteVerifier.parse, load("log.json")["notes"]["verifiers"])]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def note(data: bytes) -> None:
    """A note, and the signatures of known keys."""
    for check in (parse_note, lambda data: verify_note(data, _keys()), lambda data: check_all_signers(data, _keys())):
        try:
            check(data)
        except LogError as error:
            check_refusal(error)


def checkpoint(data: bytes) -> None:
    """The text of a checkpoint, signed by the log."""
    _signed(data, lambda signed: open_strictly(signed, _ORIGIN, [_signer().verifier]))
    _signed(data, lambda signed: open_checkpoint(signed, origin=_ORIGIN, verifiers=[_signer().verifier]))
    try:
        parsed = parse_checkpoint(_text(data))
    except LogError as error:
        check_refusal(error)
        return
    assert parsed.text == _text(data)


def restoration(data: bytes) -> None:
    """The text of a restoration, signed by the log."""
    _signed(data, lambda signed: open_restoration(signed, origin=_ORIGIN, verifiers=[_signer().verifier]))
    try:
        parsed = parse_restoration(_text(data))
    except LogError as error:
        check_refusal(error)
        return
    assert parsed.text == _text(data)


def _signed(data: bytes, check: Callable[[bytes], object]) -> None:
    try:
        check(sign_note(_text(data), [_signer()]))
    except LogError as error:
        check_refusal(error)


def key(data: bytes) -> None:
    """A key of a log, public or private."""
    for parse in (NoteVerifier.parse, NoteSigner.parse):
        try:
            parsed = parse(_text(data))
        except LogError as error:
            check_refusal(error)
        else:
            assert (parsed.text if isinstance(parsed, NoteVerifier) else parsed.secret_text()) == _text(data)


EMPTY_LOG = Checkpoint(_ORIGIN, 0, sha256().digest()).text.encode()
"""The checkpoint that is cosigned."""


@cache
def witnesses() -> Sequence[CosignatureSigner]:
    """Return a key of each type."""
    return [CosignatureSigner("witness.example.org/w", kind, bytes(32)) for kind in CosignatureType]


def cosignature(data: bytes) -> None:
    """The time and signature of a cosignature, or the key of a witness, public or private."""
    for signer in witnesses():
        line = f"\u2014 {signer.verifier.name} {base64_text(signer.verifier.key_id + data)}\n".encode()
        try:
            note = parse_note(sign_note(EMPTY_LOG.decode(), [_signer()]) + line)
            verify_cosignatures(note, [signer.verifier])
        except LogError as error:
            check_refusal(error)
    for parse in (CosignatureVerifier.parse, CosignatureSigner.parse):
        try:
            parsed = parse(_text(data))
        except LogError as error:
            check_refusal(error)
        else:
            assert (parsed.text if isinstance(parsed, CosignatureVerifier) else parsed.secret_text()) == _text(data)


@cache
def witnessed_log() -> NoteSigner:
    """Return the key of a log that none of the witnesses has."""
    return NoteSigner(_ORIGIN, bytes([1]) * 32)


@cache
def witness_policy() -> WitnessPolicy:
    """Return a policy of both witnesses, with a quorum of all."""
    lines = [f"witness w{number} {signer.verifier.text}\n" for number, signer in enumerate(witnesses())]
    text = f"log {witnessed_log().verifier.text}\n{''.join(lines)}group all all w0 w1\nquorum all\n"
    return WitnessPolicy.parse(text.encode())


def policy(data: bytes) -> None:
    """The text of a policy of witnesses."""
    try:
        parsed = WitnessPolicy.parse(data)
    except LogError as error:
        check_refusal(error)
        return
    assert WitnessPolicy.parse(parsed.text.encode()) == parsed
    assert parsed.has_quorum([witness.name for witness in parsed.witnesses])


def cosigned(data: bytes) -> None:
    """The signature lines after the log's own, of a checkpoint with cosignatures."""
    note = sign_note(EMPTY_LOG.decode(), [witnessed_log()]) + data
    try:
        open_cosigned(note, _ORIGIN, [witnessed_log().verifier], witness_policy())
    except LogError as error:
        check_refusal(error)
    try:
        _witnessed_root().open_note(keep_signatures(note, _witnessed_root().known_keys))
    except LogError as error:
        check_refusal(error)


@cache
def _witnessed_root() -> Root:
    return replace(_root(), origin=_ORIGIN, keys=(witnessed_log().verifier,), policy=witness_policy())


def later(size: int) -> bytes:
    """Return a checkpoint that is signed by the log and has no quorum."""
    return sign_note(Checkpoint(_ORIGIN, size, bytes(32)).text, [witnessed_log()])


def latest(data: bytes) -> None:
    """The file `latest` of an export of an empty log."""
    try:
        check_latest(data, parse_checkpoint(EMPTY_LOG.decode()), _witnessed_root())
    except LogError as error:
        check_refusal(error)


def submission(data: bytes) -> None:
    """A request to a witness, and one with the bytes before a checkpoint that the log signed."""
    log = WitnessedLog(_ORIGIN, (_signer().verifier,))
    for request in (data, data + b"\n\n" + sign_note(EMPTY_LOG.decode(), [_signer()])):
        try:
            check_extension(open_submission(request, {_ORIGIN: log}), None)
        except LogError as error:
            check_refusal(error)


def tile(data: bytes) -> None:
    """A tile of hashes, entries or places, whose width is the first byte, or the path of one."""
    width, rest = data[0] if data else 0, data[1:]
    try:
        assert b"".join(parse_hashes(rest, width)) == rest
    except LogError as error:
        check_refusal(error)
    try:
        assert encode_entries(parse_entries(rest, width)) == rest
    except LogError as error:
        check_refusal(error)
    try:
        assert encode_places(parse_places(rest, width)) == rest
    except LogError as error:
        check_refusal(error)
    try:
        assert TileName.parse(_text(rest)).path == _text(rest)
    except LogError as error:
        check_refusal(error)


def receipt(data: bytes) -> None:
    """A receipt of an entry."""
    try:
        parsed = parse_receipt(data)
    except LogError as error:
        check_refusal(error)
        return
    assert encode_receipt(parsed) == data
    try:
        verify_receipt(parsed, bytes(32), origin=_ORIGIN, verifiers=_keys())
    except LogError as error:
        check_refusal(error)


def frames(data: bytes) -> None:
    """The frames of a file of messages."""
    try:
        for frame in read_frames(io.BytesIO(data).read):
            assert encode_frame(frame) in data
            entry_of(frame)
    except (LogError, EnvelopeError) as error:
        check_refusal(error)


def root_file(data: bytes) -> None:
    """A verifier's root file."""
    try:
        parsed = Root.parse(data)
    except ConfigurationError as error:
        check_refusal(error)
        return
    assert Root.parse(parsed.encode()).encode() == parsed.encode()


def cose_receipt(data: bytes) -> None:
    """A COSE receipt of an entry, parsed, verified, and compared with the receipt of a record."""
    try:
        parsed = CoseReceipt.parse(data)
    except LogError as error:
        check_refusal(error)
        return
    assert parsed.encode() == data
    try:
        verify_cose_receipt(parsed, bytes(32), origin=_ORIGIN, verifiers=_keys())
    except LogError as error:
        check_refusal(error)
    try:
        check_cose_receipt(data, _proven(), _root())
    except LogError as error:
        check_refusal(error)


@cache
def _root() -> Root:
    return Root.parse(json.dumps(load("exports.json")["root"]).encode())


@cache
def _proven() -> ProvenRecord:
    return check_receipt(load("exports.json")["receipts"][0]["text"].encode(), _root())


def record_receipt(data: bytes) -> None:
    """A receipt of a record, checked against a root."""
    try:
        check_receipt(data, _root())
    except (LogError, EnvelopeError) as error:
        check_refusal(error)


@cache
def _files() -> Mapping[str, bytes]:
    return {name: bytes.fromhex(data) for name, data in load("exports.json")["files"].items()}


def export(data: bytes) -> None:
    """An export, one of whose files is replaced; the first byte names the file."""
    names = sorted(_files())
    name = names[(data[0] if data else 0) % len(names)]
    report = verify_export(MemoryFiles({**_files(), name: data[1:]}), _root(), processes=1)
    assert report.passed == (data[1:] == _files()[name])


TARGETS: Mapping[str, Target] = {
    "note": note,
    "checkpoint": checkpoint,
    "restoration": restoration,
    "key": key,
    "cosignature": cosignature,
    "policy": policy,
    "cosigned": cosigned,
    "latest": latest,
    "submission": submission,
    "tile": tile,
    "receipt": receipt,
    "frames": frames,
    "root": root_file,
    "record_receipt": record_receipt,
    "cose_receipt": cose_receipt,
    "export": export,
}
