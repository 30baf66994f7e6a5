"""What a requester keeps of a task or call that it sent, writable as a handle (SPEC.md section 7)."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

from sealbus.envelopes.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.header import Header, is_subject
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.names import Names
from sealbus.envelopes.record_fields import DIGEST_BYTES, RecordMap, check_bytes, check_uint
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.subjects import status_subject

__all__ = ["PendingRequest"]

_ID_BYTES: Final = 16
_HANDLE_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """A request of ours: enough to know its answers by, and nothing secret. Raises `SealError` for bad fields.

    `digest` is H(header), `id` the message id, `aud` who may answer, `end` until when (microseconds). `rpl` is where
    replies go, for a call; None for a task, whose statuses go to the status subject of whoever asked.
    Whoever hands over a handle decides what its reader takes for an answer: read handles only from where you keep them.
    """

    digest: bytes
    id: bytes
    aud: SpiffeId
    end: int
    rpl: str | None = None

    def __post_init__(self) -> None:
        check_bytes("digest", self.digest, least=DIGEST_BYTES, most=DIGEST_BYTES)
        check_bytes("id", self.id, least=_ID_BYTES, most=_ID_BYTES)
        check_uint("end", self.end)
        if self.rpl is not None and not is_subject(self.rpl):
            raise SealError("rpl is not a subject")

    @classmethod
    def of(cls, header: Header) -> PendingRequest:
        """Return what to keep of a task or call that was sealed; raise `SealError` for other kinds."""
        if header.aud is None or header.end is None:
            raise SealError(f"nothing answers to a {header.kind}")
        return cls(digest=header.digest, id=header.id, aud=header.aud, end=header.end, rpl=header.rpl)

    def answers_to(self, own: SpiffeId, names: Names) -> str:
        """Return the subject that answers arrive on; `own` is who asked."""
        return self.rpl if self.rpl is not None else status_subject(names.token(own), self.id)

    def encode(self) -> bytes:
        """Return the handle as bytes."""
        fields: dict[str, Value] = {
            "v": 1,
            "dig": self.digest,
            "id": self.id,
            "aud": self.aud.value,
            "end": self.end,
        }
        if self.rpl is not None:
            fields["rpl"] = self.rpl
        return encode(fields, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes)

    def to_text(self) -> str:
        """Return the handle as text: the unpadded base64url of its bytes."""
        return urlsafe_b64encode(self.encode()).rstrip(b"=").decode()

    @classmethod
    def parse(cls, handle: bytes) -> PendingRequest:
        """Return what `encode` wrote; raise `EnvelopeError` (`malformed`, step 0) for everything else."""
        if len(handle) > _HANDLE_BYTES:
            raise EnvelopeError(Code.MALFORMED, 0, "handle: too large")
        keys = RecordMap(decode(handle, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, step=0))
        try:
            request = cls(
                digest=keys.octets("dig"),
                id=keys.octets("id"),
                aud=SpiffeId.parse(keys.text("aud")),
                end=keys.uint("end"),
                rpl=keys.text("rpl") if "rpl" in keys else None,
            )
        except SealError as error:
            raise EnvelopeError(Code.MALFORMED, 0, f"handle: {error.detail}") from error
        keys.end()
        return request

    @classmethod
    def from_text(cls, text: str) -> PendingRequest:
        """Return what `to_text` wrote; raise `EnvelopeError` (`malformed`, step 0) for everything else."""
        try:
            handle = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError as error:
            raise EnvelopeError(Code.MALFORMED, 0, "handle: not base64url") from error
        request = cls.parse(handle)
        # The decoder skips strange characters; there is one spelling of a handle.
        if request.to_text() != text:
            raise EnvelopeError(Code.MALFORMED, 0, "handle: not canonical")
        return request
