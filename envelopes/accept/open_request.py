"""An open request: the state that its requester keeps, and the state machine for its replies, chunks and statuses.

This module verifies no signature. `counted` and `check` judge a header before the expensive steps and change nothing.
`take` records an answer that passed all steps. A handle encodes the kept state (SPEC.md section 7).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Final, Self

from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import DIGEST_BYTES, RecordMap, check_bytes, check_uint
from sealbus.envelopes.message.header import Header, is_subject
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import status_subject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

STATUSES: Final = 4_096
"""Most non-terminal statuses of one request that a reader counts, to bound its memory."""

_ID_BYTES: Final = 16
_HANDLE_BYTES: Final = 4_096


class OpenRequest:
    """A request that is open until its `end`, a reply or a `fin`. It never reopens."""

    __slots__ = ("_closed", "_counted", "_key", "_next", "pending")

    def __init__(self, pending: PendingRequest) -> None:
        self.pending: Final = pending
        self._closed = False
        self._key: bytes | None = None
        self._next = 0
        self._counted: set[int] = set()

    def until(self, end: int) -> Self:
        """Return this request with another `end` (microseconds), and with the statuses that it has counted.

        A parked task waits until the end that its agent names (SPEC.md section 7, "Approvals").
        """
        request = type(self)(replace(self.pending, end=end))
        request._closed = self._closed
        request._counted |= self._counted
        return request

    @property
    def closed(self) -> bool:
        """Whether the last answer has arrived."""
        return self._closed

    def expired(self, now: int) -> bool:
        """Return whether `end` has passed without a last answer, so that the requester itself concludes `expired`.

        Conclude this for a task only after reading every status that was stored before `end`.
        """
        return not self._closed and now >= self.pending.end

    def check_sender(self, header: Header) -> None:
        """Raise `EnvelopeError` (`unexpected_reply`, step 4) unless `header` is from the recipient of the request.

        The subject shows whether a reply answers a call, or a status a task.
        """
        if header.iss != self.pending.aud:
            raise _unexpected("from an agent that was not asked")

    def counted(self, header: Header) -> bool:
        """Return whether a status with this number was counted before, so that this status is ignored.

        This covers every status seen before, even after the terminal one, because a stream may redeliver.
        """
        return header.seq in self._counted

    def check(self, header: Header, *, reference: int) -> None:
        """Raise `EnvelopeError` (`unexpected_reply`, step 4) unless `header` may come next.

        `reference` is the present or, for a status, its stored time, in microseconds. All chunks have one key, and their
        numbers are gapless from 0.
        """
        if self._closed:
            raise _unexpected("closed")
        if reference >= self.pending.end:
            raise _unexpected("past its end")
        if header.kind is Kind.CHUNK:
            if header.seq != self._next:
                raise _unexpected("a gap, or a repeated chunk")
            if self._key is not None and header.key.raw != self._key:
                raise _unexpected("chunks of another key")
        elif header.kind is Kind.STATUS and not header.fin and len(self._counted) >= STATUSES:
            raise _unexpected("too many statuses")

    def take(self, header: Header) -> None:
        """Record an answer that passed `check` and all steps."""
        if header.kind is Kind.REPLY or header.fin:
            self._closed = True
        if header.kind is Kind.CHUNK:
            self._key = header.key.raw
            self._next += 1
        elif header.kind is Kind.STATUS and header.seq is not None:
            self._counted.add(header.seq)


def _unexpected(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.UNEXPECTED_REPLY, 4, detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """The parts of our request that recognise its answers. None is secret. Raises `SealError` for bad fields.

    `digest` is H(header), `id` the message id, `aud` the agent that may answer, and `end` the time until which it may, in
    microseconds. `rpl` is the subject of the replies to a call. It is None for a task, whose statuses go to the requester's
    status subject. A handle decides which answers its reader accepts: read handles only from a trusted store.
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
        """Return the pending request of a sealed task or call; raise `SealError` for other kinds."""
        if header.aud is None or header.end is None:
            raise SealError(f"a {header.kind} has no answer")
        return cls(digest=header.digest, id=header.id, aud=header.aud, end=header.end, rpl=header.rpl)

    def answers_to(self, own: SpiffeId, names: Names) -> str:
        """Return the subject on which answers arrive; `own` is the requester."""
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
        """Parse a handle of `encode`; raise `EnvelopeError` (`malformed`, step 0) for any other bytes."""
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
        """Parse a text of `to_text`; raise `EnvelopeError` (`malformed`, step 0) for any other text."""
        try:
            handle = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError as error:
            raise EnvelopeError(Code.MALFORMED, 0, "handle: not base64url") from error
        request = cls.parse(handle)
        # The decoder skips invalid characters; a handle has only one spelling.
        if request.to_text() != text:
            raise EnvelopeError(Code.MALFORMED, 0, "handle: not canonical")
        return request
