"""Decides whether a submitted checkpoint is cosigned. Pure: request and last checkpoint in, submission or refusal out.

The checks are in the order of C2SP tlog-witness: 404, 403, 400, 409, 422. A request body is::

    old <size of the checkpoint that the witness cosigned last>
    <hash of the consistency proof, base64>          0 to 63 lines

    <checkpoint, a signed note>
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeAlias

from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import Checkpoint, read_lines
from sealbus.envelopes.log.cosignature import CosignatureType, CosignatureVerifier
from sealbus.envelopes.log.note import (
    DASH,
    NoteSignature,
    NoteVerifier,
    base64_text,
    key_parts,
    parse_base64,
    parse_note,
    parse_number,
    verify_note,
)
from sealbus.envelopes.log.tree_proofs import verify_consistency

LogVerifier: TypeAlias = NoteVerifier | CosignatureVerifier

_OLD: Final = "old "
_BLANK: Final = b"\n\n"
_PROOF_LINES: Final = 63
_HASH_BYTES: Final = 32
_HASH_LINE: Final = 45
_TEXT_BYTES: Final = 8_192
"""Longest text of a checkpoint: three lines, and extension lines if a log writes any."""
_ORIGIN_BYTES: Final = 255
"""Longest origin: cosignatures by ML-DSA-44 keys have one byte for its length."""
SUBMISSION_BYTES: Final = DEFAULT_LIMITS.note_bytes + _PROOF_LINES * _HASH_LINE + 64
"""The longest request: the longest note, the longest proof, and the line with the old size."""


class SubmissionRefused(LogError):
    """A submission is not cosigned. `status` is the HTTP status of tlog-witness.

    If it `proves_fork`, a key of the log has signed two roots of one size.
    """

    def __init__(self, status: int, code: Code, detail: str, *, proves_fork: bool = False) -> None:
        super().__init__(code, detail)
        self.status = status
        self.proves_fork = proves_fork


class OldSizeDiffers(SubmissionRefused):
    """409: the old size is not that of the last cosigned checkpoint, which is `size`."""

    def __init__(self, size: int) -> None:
        super().__init__(409, Code.INCONSISTENT_LOG, "the old size is not that of the last cosigned checkpoint")
        self.size = size


@dataclass(frozen=True, slots=True)
class WitnessedLog:
    """A log whose checkpoints are cosigned: its origin, and the keys that sign its checkpoints.

    Raises `ConfigurationError` for an origin that no log has, and without a key.
    """

    origin: str
    verifiers: tuple[LogVerifier, ...]

    def __post_init__(self) -> None:
        try:
            Checkpoint(self.origin, 0, sha256().digest())
        except LogError as error:
            raise ConfigurationError(f"{self.origin!r} cannot be the origin of a log: {error.detail}") from error
        if len(self.origin.encode()) > _ORIGIN_BYTES:
            raise ConfigurationError(f"{self.origin!r} cannot be the origin of a witnessed log: it is over 255 bytes")
        if not self.verifiers:
            raise ConfigurationError(f"the log {self.origin!r} has no key")

    @classmethod
    def parse(cls, origin: str, keys: tuple[str, ...]) -> WitnessedLog:
        """Return the log with the verifier keys `keys`: Ed25519 (0x01), or the types of cosignatures (0x04, 0x06)."""
        try:
            return cls(origin, tuple(_verifier(key) for key in keys))
        except LogError as error:
            raise ConfigurationError(f"the log {origin!r}: {error.detail}") from error

    @property
    def origin_hash(self) -> str:
        """The SHA-256 hash of the origin in hex, by which monitors ask for the log's checkpoint."""
        return sha256(self.origin.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint that a key of its log has signed, with a proof that nobody has checked yet."""

    log: WitnessedLog
    old: int
    path: tuple[bytes, ...]
    size: int
    root: bytes
    text: str
    """The text of the checkpoint's note, with extension lines if the log writes any."""
    signatures: tuple[NoteSignature, ...]
    """One signature by each key of the log that signed; all others are left out."""

    @property
    def note(self) -> bytes:
        """The checkpoint with these signatures."""
        lines = (f"{DASH}{line.name} {base64_text(line.key_id + line.signature)}\n" for line in self.signatures)
        return f"{self.text}\n{''.join(lines)}".encode()


def open_submission(body: bytes, logs: Mapping[str, WitnessedLog]) -> Submission:
    """Return the submission in a request's body, if a key of its log in `logs` (by origin) signed it.

    Raises `SubmissionRefused`: 404 for an unknown origin; 403 unless a key of the log signed the note, and for a bad
    signature by such a key; 400 for a malformed request, and an old size over that of the checkpoint.
    """
    head, blank, note = body.partition(_BLANK)
    if not blank:
        raise SubmissionRefused(400, Code.BAD_NOTE, "no empty line before the checkpoint")
    log = logs.get(note.partition(b"\n")[0].decode("utf-8", "replace"))
    if log is None:
        raise SubmissionRefused(404, Code.WRONG_LOG, "unknown log")
    try:
        text = verify_note(note, log.verifiers).text
    except LogError as error:
        # Malformed notes as well: what cannot be parsed has no signature by a known key.
        raise SubmissionRefused(403, error.code, error.detail) from error
    try:
        _, size, root = read_lines(text)
        old, path = _parse_head(head)
    except LogError as error:
        raise SubmissionRefused(400, error.code, error.detail) from error
    if len(root) != _HASH_BYTES or len(text.encode()) > _TEXT_BYTES:
        raise SubmissionRefused(400, Code.BAD_NOTE, "the root has 32 bytes, and the text at most 8,192")
    if old > size:
        raise SubmissionRefused(400, Code.INCONSISTENT_LOG, "the old size is over that of the checkpoint")
    known = {(verifier.name, verifier.key_id) for verifier in log.verifiers}
    signatures = {line[:2]: line for line in parse_note(note).signatures if line[:2] in known}
    return Submission(log, old, path, size, root, text, tuple(signatures.values()))


def check_extension(submission: Submission, last: Checkpoint | None) -> Checkpoint:
    """Return the submitted checkpoint if it extends `last`, the last cosigned checkpoint of its log; `None` if there is none.

    Raises `OldSizeDiffers` (409), or `SubmissionRefused` (422): two roots of one size, a wrong proof, a proof where none is
    needed, a wrong root of an empty log.
    """
    last_size = last.size if last is not None else 0
    if submission.old != last_size:
        raise OldSizeDiffers(last_size)
    try:
        checkpoint = Checkpoint(submission.log.origin, submission.size, submission.root)
        last_root = last.root if last is not None else sha256().digest()
        verify_consistency(last_size, last_root, checkpoint.size, checkpoint.root, submission.path)
    except LogError as error:
        fork = error.code is Code.INCONSISTENT_LOG
        raise SubmissionRefused(422, error.code, error.detail, proves_fork=fork) from error
    return checkpoint


def _parse_head(head: bytes) -> tuple[int, tuple[bytes, ...]]:
    try:
        old, *proof = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise LogError(Code.BAD_NOTE, "not ASCII before the checkpoint") from error
    if not old.startswith(_OLD):
        raise LogError(Code.BAD_NOTE, "no line with the old size")
    if len(proof) > _PROOF_LINES:
        raise LogError(Code.BAD_NOTE, "over 63 lines of proof")
    path = tuple(parse_base64(line, "proof") for line in proof)
    if any(len(node) != _HASH_BYTES for node in path):
        raise LogError(Code.BAD_NOTE, "proof: a hash has 32 bytes")
    return parse_number(old.removeprefix(_OLD), "old size"), path


def _verifier(key: str) -> LogVerifier:
    _, _, material = key_parts(key)
    if material[:1] in [bytes([kind]) for kind in CosignatureType]:
        return CosignatureVerifier.parse(key)
    return NoteVerifier.parse(key)
