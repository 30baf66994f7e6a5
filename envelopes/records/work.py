"""An agent's records besides decisions: the `outcome` of an allowed decision, and `denials`, which only count decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

from sealbus.envelopes.encoding.codec import Value, encode, pack
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.fields import (
    DIGEST_BYTES,
    NO_EXTENSIONS,
    ExtValue,
    RecordMap,
    check_bytes,
    check_code,
    check_extensions,
    check_uint,
)
from sealbus.envelopes.trust.spiffe_id import SpiffeId

MINUTE = 60 * SECOND
"""The period of one `denials` record, in microseconds."""

READ_AGAIN = "read_again"
"""The code that counts allowed repeated uses of an answer, in `denials` records. No decision has it."""

SENT_HASHES = 1_024
"""Most hashes of sent messages in an outcome; a stream of chunks may be longer (SPEC.md section 8)."""


def check_minute_counts(minute: int, counts: Mapping[str, int]) -> None:
    """Raise `SealError` unless `minute` starts a minute and `counts` has at least one code, each counted once or more."""
    check_uint("minute", minute)
    if minute % MINUTE:
        raise SealError("minute is not the start of a minute")
    if not counts:
        raise SealError("nothing is counted")
    for code in counts:
        check_code("counts", code)
    for count in counts.values():
        check_uint("count", count, least=1)


# A named tuple, which costs less than a frozen dataclass: every message has an outcome.


class _Outcome(NamedTuple):
    decision: bytes
    micros: int
    delivery: int
    code: str | None
    sent: tuple[bytes, ...]
    sent_count: int
    ext: Mapping[str, ExtValue]


class OutcomeRecord(_Outcome):
    """The outcome of one allowed decision; `decision` is the leaf that names the decision's record.

    `code` is None on success, else a `Code` or the text of a newer writer's code. `micros` is the time of handling, in
    microseconds. `sent` are H(header) of the messages that the handler sealed, in order. Pass all of them to `of`, which
    keeps the first 1,024; `sent_count` counts all. `ext` are entries that a newer writer may add; they are not interpreted.
    """

    __slots__ = ()

    kind: ClassVar[str] = "outcome"

    def __new__(
        cls,
        decision: bytes,
        micros: int,
        delivery: int,
        code: str | None = None,
        sent: tuple[bytes, ...] = (),
        sent_count: int = 0,
        ext: Mapping[str, ExtValue] = NO_EXTENSIONS,
    ) -> Self:
        """Check all fields, by themselves and together."""
        check_bytes("decision", decision, least=DIGEST_BYTES, most=DIGEST_BYTES)
        check_uint("micros", micros)
        check_uint("delivery", delivery, least=1)
        check_uint("sent_count", sent_count)
        if code is not None:
            check_code("code", code)
        for digest in sent:
            check_bytes("sent", digest, least=DIGEST_BYTES, most=DIGEST_BYTES)
        if len(sent) != min(sent_count, SENT_HASHES):
            raise SealError(f"sent holds the first {SENT_HASHES} of sent_count hashes")
        if ext:
            check_extensions(ext)
        return super().__new__(cls, decision, micros, delivery, code, sent, sent_count, ext)

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]  # the base is generic in its own type
        # `_replace` uses this, so its result is checked, too.
        return cls(*iterable)

    @classmethod
    def of(
        cls, *, decision: bytes, code: str | None = None, micros: int, delivery: int, sent: tuple[bytes, ...] = ()
    ) -> OutcomeRecord:
        """Return the record of an outcome with all hashes in `sent`, of any number."""
        return cls(
            decision=decision,
            code=code,
            micros=micros,
            delivery=delivery,
            sent=sent[:SENT_HASHES],
            sent_count=len(sent),
        )

    def encode(self) -> bytes:
        """Return the encoded map."""
        # As with decisions: the constructor has checked every value, and the keys are inserted in order.
        decision, micros, delivery, code, sent, sent_count, ext = self
        record: dict[str, object] = {}
        if sent_count > SENT_HASHES:
            record["cnt"] = sent_count
        if code is not None:
            record["cod"] = str(code)
        record["dec"] = decision
        record["dlv"] = delivery
        if ext:
            record["ext"] = dict(ext)
        record["k"] = "outcome"
        record["mic"] = micros
        if sent:
            record["out"] = sent
        record["suc"] = code is None
        record["v"] = 1
        return pack(record)

    @classmethod
    def from_keys(cls, keys: RecordMap) -> OutcomeRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        code = None if keys.flag("suc") else keys.code("cod")
        sent = keys.some_octets("out")
        count = len(sent)
        if "cnt" in keys:
            count = keys.uint("cnt")
            check_uint("cnt", count, least=SENT_HASHES + 1)
        return cls(
            decision=keys.octets("dec"),
            code=code,
            micros=keys.uint("mic"),
            delivery=keys.uint("dlv"),
            sent=sent,
            sent_count=count,
            ext=keys.extensions("ext"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialsRecord:
    """How often messages of `iss` were denied, by code, in the minute that starts at `minute` (a multiple of 60 s).

    They count decisions beyond a budget, which were made but have no record of their own. The code `READ_AGAIN` counts
    decisions that allowed: a requester read an answer of `iss` once more.
    """

    kind: ClassVar[str] = "denials"

    iss: SpiffeId
    minute: int
    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        check_minute_counts(self.minute, self.counts)
        object.__setattr__(self, "counts", MappingProxyType(dict(self.counts)))

    @property
    def allowed(self) -> int:
        """The number of decisions that allowed."""
        return self.counts.get(READ_AGAIN, 0)

    @property
    def denied(self) -> int:
        """The number of decisions that denied."""
        return sum(self.counts.values()) - self.allowed

    def encode(self) -> bytes:
        """Return the encoded map."""
        counts: dict[str, Value] = {str(code): count for code, count in self.counts.items()}
        return encode(
            {"v": 1, "k": self.kind, "iss": str(self.iss), "min": self.minute, "cnt": counts},
            text_bytes=DEFAULT_LIMITS.spiffe_id_bytes,
        )

    @classmethod
    def from_keys(cls, keys: RecordMap) -> DenialsRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        return cls(iss=SpiffeId.parse(keys.text("iss")), minute=keys.uint("min"), counts=keys.counts("cnt"))
