"""The stored claim on an effect that may happen only once, encoded and parsed (SPEC.md section 7, "Effects").

::

    [payload]                                  while it is started or unknown
    [payload, signature, key, token]           free or done: signed by the identity that made it

A claim that says that the effect has happened, or may be tried again, counts only with a signature of this identity. Others
can have the broker store bytes here; if these counted, they could make a handler run twice or not at all, or forge a result.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sealbus.bus.sending.message import Content
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.message.fields import DIGEST_BYTES, RecordMap, check_bytes, check_uint
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId

CLAIM_TYPE: Final = "application/vnd.sealbus.claim.v1"
"""Payload type of the signature, so that no other signature of this identity passes for the signature of a claim."""

RESULT_BYTES: Final = 65_536
"""Largest result that is kept with its claim."""

INSTANCE_BYTES: Final = 16
_BYTES: Final = 2 * RESULT_BYTES
_UNSIGNED, _SIGNED = 1, PARTS


class Stage(StrEnum):
    """The progress of an effect."""

    STARTED = "started"
    """A handler runs, or ran in a process that died."""
    FREE = "free"
    """A handler failed: the next delivery may claim again."""
    DONE = "done"
    UNKNOWN = "unknown"
    """Its process died before it wrote an outcome. The handler does not run again."""


SIGNED: Final = frozenset({Stage.FREE, Stage.DONE})
"""Stages that count only with a signature: they let a handler run again, or never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClaim:
    """A claim on the effect `key`. Raises `SealError` for bad fields.

    `dig` is the digest of the body, `first` H(header) of the message that claimed the effect first. The handler of the
    process `by` may run until `until`; the claim was written `at` (both microseconds). `result` is what the handler returned,
    if it is done and the result is small.
    """

    key: bytes
    dig: bytes
    first: bytes
    by: bytes
    stage: Stage
    at: int
    until: int
    result: Content | None = None

    def __post_init__(self) -> None:
        for name in ("key", "dig", "first"):
            check_bytes(name, getattr(self, name), least=DIGEST_BYTES, most=DIGEST_BYTES)
        check_bytes("by", self.by, least=INSTANCE_BYTES, most=INSTANCE_BYTES)
        check_uint("at", self.at)
        check_uint("until", self.until)
        if self.result is not None and (self.stage is not Stage.DONE or len(self.result.body) > RESULT_BYTES):
            raise SealError("a claim has a result only if it is done and the result is small")

    def payload(self) -> bytes:
        """Return the encoded map."""
        fields: dict[str, Value] = {
            "v": 1,
            "key": self.key,
            "dig": self.dig,
            "first": self.first,
            "by": self.by,
            "stage": self.stage.value,
            "at": self.at,
            "until": self.until,
        }
        if self.result is not None:
            fields["typ"] = self.result.typ
            fields["res"] = self.result.body
        return encode(fields, text_bytes=RESULT_BYTES)


def unsigned(claim: StoredClaim) -> bytes:
    """Encode a claim without a result, unsigned."""
    if claim.result is not None:
        raise SealError("a result is stored only signed")
    return encode([claim.payload()], text_bytes=_BYTES)


def sign(claim: StoredClaim, sealer: Sealer) -> bytes:
    """Encode a claim, signed by `sealer`, whose credential must be valid at `claim.at`."""
    return encode([*signed(claim.payload(), CLAIM_TYPE, sealer)], text_bytes=_BYTES)


def parse(stored: bytes, *, own: SpiffeId, trust: Trust, caches: Caches) -> tuple[StoredClaim, bool]:
    """Parse a stored claim; return it and whether `own` signed it. A result that `own` did not sign is left out.

    Raises `EnvelopeError` (`malformed`, step 0) for anything but a claim.
    """
    array = decode(stored, text_bytes=_BYTES, step=0) if len(stored) <= 2 * _BYTES else None
    if not isinstance(array, list) or len(array) not in (_UNSIGNED, _SIGNED):
        raise EnvelopeError(Code.MALFORMED, 0, "claim: not an array of one or four")
    if not all(isinstance(part, bytes) for part in array):
        raise EnvelopeError(Code.MALFORMED, 0, "claim: not bytes")
    parts = [part for part in array if isinstance(part, bytes)]
    is_ours = len(parts) == _SIGNED and _is_signed(parts, own=own, trust=trust, caches=caches)
    return _stored_claim(parts[0], trusted=is_ours), is_ours


def _stored_claim(payload: bytes, *, trusted: bool) -> StoredClaim:
    keys = RecordMap(decode(payload, text_bytes=RESULT_BYTES, step=0))
    typ = keys.text("typ") if "typ" in keys else None
    result = Content(body=keys.octets("res"), typ=typ) if typ is not None else None
    try:
        claim = StoredClaim(
            key=keys.octets("key"),
            dig=keys.octets("dig"),
            first=keys.octets("first"),
            by=keys.octets("by"),
            stage=Stage(keys.text("stage")),
            at=keys.uint("at"),
            until=keys.uint("until"),
            result=result if trusted else None,
        )
    except (SealError, ValueError) as error:
        raise EnvelopeError(Code.MALFORMED, 0, "claim") from error
    keys.end()
    return claim


def _is_signed(parts: list[bytes], *, own: SpiffeId, trust: Trust, caches: Caches) -> bool:
    try:
        at = RecordMap(decode(parts[0], text_bytes=RESULT_BYTES, step=0)).uint("at")
    except EnvelopeError:
        return False
    return is_own(parts, CLAIM_TYPE, own=own, at=at, trust=trust, caches=caches)
