"""The `decision` record: what the gate decided about one delivery, stored before it is handled (SPEC.md section 8)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from sealbus.envelopes.codec import pack
from sealbus.envelopes.errors import Code, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.record_fields import (
    RecordMap,
    check_bytes,
    check_proof,
    check_text,
    check_texts,
    check_uint,
)
from sealbus.envelopes.wire import Proof

__all__ = ["DECISION_CODES", "CorePlace", "DecisionRecord", "StreamPlace"]

_NOT_ASKED = frozenset({Code.BAD_BODY, Code.RESOURCE_NOT_FOUND, Code.RESOURCE_UNAVAILABLE})

DECISION_CODES = _NOT_ASKED | {Code.DENIED, Code.POLICY_UNAVAILABLE, Code.POLICY_ERROR}
"""The failures of steps 14 to 16: what the code of a decision that did not allow may be."""


_ACTION = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


@lru_cache(maxsize=1024)
def _is_action(text: str) -> bool:
    # An agent has a few actions and asks about them again and again.
    return len(text) <= DEFAULT_LIMITS.text_bytes and _ACTION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlace:
    """Where the broker had stored a decided message: stream name, sequence (from 1) and stored time."""

    stream: str
    sequence: int
    stored: int

    def __post_init__(self) -> None:
        check_text("stream", self.stream, least=1, most=255)
        check_uint("sequence", self.sequence, least=1)
        check_uint("stored", self.stored)

    @property
    def time(self) -> int:
        """Reference time of the archive profile: the stored time."""
        return self.stored


@dataclass(frozen=True, slots=True, kw_only=True)
class CorePlace:
    """A decided message that no stream had stored, and the time at which it was opened."""

    opened: int

    def __post_init__(self) -> None:
        check_uint("opened", self.opened)

    @property
    def time(self) -> int:
        """Reference time of the archive profile: the time of opening."""
        return self.opened


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision, allow or not. Construction raises `SealError` for what SPEC.md section 8 does not allow together.

    `header` and `proof` are the decided message's as received; nothing about them is verified here (`archive` does).
    `input` is the exact JSON document that the engine was given; `obligations` is a JSON array, or empty for none;
    `micros` is what the engine took. What the policy was not asked for, or did not answer, is None.
    """

    KIND: ClassVar[str] = "decision"

    header: bytes
    proof: Proof
    action: str
    place: StreamPlace | CorePlace
    delivery: int
    allow: bool
    code: Code | None = None
    input: bytes | None = None
    reasons: tuple[str, ...] = ()
    obligations: bytes = b""
    revision: str | None = None
    policy: str | None = None
    engine: str | None = None
    micros: int | None = None

    def __post_init__(self) -> None:
        check_bytes("header", self.header, most=DEFAULT_LIMITS.header_bytes)
        check_proof("proof", self.proof)
        if not _is_action(self.action):
            raise SealError("action is not dotted tokens")
        check_uint("delivery", self.delivery, least=1)
        if self.input is not None:
            check_bytes("input", self.input, most=DEFAULT_LIMITS.input_document_bytes)
        if self.reasons:
            check_texts("reasons", self.reasons)
        if self.obligations:
            check_bytes("obligations", self.obligations, most=DEFAULT_LIMITS.input_document_bytes)
        if self.revision is not None:
            check_text("revision", self.revision)
        if self.policy is not None:
            check_text("policy", self.policy)
        if self.engine is not None:
            check_text("engine", self.engine)
        if self.micros is not None:
            check_uint("micros", self.micros)
        if (self.engine is None) is not (self.micros is None):
            raise SealError("engine and micros come together")
        if type(self.place) is CorePlace and self.delivery != 1:
            raise SealError("core NATS delivers once")
        code = self.code
        if (code is None) is not self.allow:
            raise SealError("a decision has a code exactly if it does not allow")
        if code is None or code is Code.DENIED:
            if self.input is None or self.revision is None or self.policy is None or self.engine is None:
                raise SealError("a policy's answer has input, revision, policy, engine and micros")
        elif code in _NOT_ASKED:
            answer = (self.revision, self.policy, self.engine)
            if answer != (None, None, None) or self.reasons or self.obligations:
                raise SealError(f"with {code} the policy was not asked")
        elif code not in DECISION_CODES:
            raise SealError(f"{code} is not a code of steps 14 to 16")

    def encode(self) -> bytes:
        """Return the encoded map."""
        # Construction has checked every value, and the keys are put in here in their order: packing suffices, and
        # costs a third of `encode`, for what is done once for each message of each agent.
        record: dict[str, object] = {"act": self.action, "alw": self.allow}
        if self.code is not None:
            record["cod"] = self.code.value
        record["dlv"] = self.delivery
        if self.engine is not None:
            record["eng"] = self.engine
        record["hdr"] = self.header
        if self.input is not None:
            record["inp"] = self.input
        record["k"] = self.KIND
        if self.micros is not None:
            record["mic"] = self.micros
        if self.obligations:
            record["obl"] = self.obligations
        place = self.place
        if isinstance(place, CorePlace):
            record["opn"] = place.opened
        if self.policy is not None:
            record["pol"] = self.policy
        record["prf"] = self.proof
        if self.revision is not None:
            record["rev"] = self.revision
        if self.reasons:
            record["rsn"] = self.reasons
        if isinstance(place, StreamPlace):
            record["seq"] = place.sequence
            record["sto"] = place.stored
            record["str"] = place.stream
        record["v"] = 1
        return pack(record)

    @classmethod
    def take(cls, keys: RecordMap) -> DecisionRecord:
        """Take the keys of the table out of a decoded record; raise `EnvelopeError` or, for ranges, `SealError`."""
        place: StreamPlace | CorePlace
        if "opn" in keys:
            place = CorePlace(opened=keys.uint("opn"))
        else:
            place = StreamPlace(stream=keys.text("str"), sequence=keys.uint("seq"), stored=keys.uint("sto"))
        if "obl" in keys:
            obligations = keys.octets("obl")
            check_bytes("obligations", obligations, most=DEFAULT_LIMITS.input_document_bytes)
        else:
            obligations = b""
        return cls(
            header=keys.octets("hdr"),
            proof=keys.proof("prf"),
            action=keys.text("act"),
            place=place,
            delivery=keys.uint("dlv"),
            allow=keys.flag("alw"),
            code=keys.code("cod") if "cod" in keys else None,
            input=keys.octets("inp") if "inp" in keys else None,
            reasons=keys.some_texts("rsn"),
            obligations=obligations,
            revision=keys.text("rev") if "rev" in keys else None,
            policy=keys.text("pol") if "pol" in keys else None,
            engine=keys.text("eng") if "eng" in keys else None,
            micros=keys.uint("mic") if "mic" in keys else None,
        )
