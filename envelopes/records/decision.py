"""The `decision` record: the gate's decision about one delivery, stored before it is handled (SPEC.md section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.errors import Code, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import (
    NO_EXTENSIONS,
    ExtValue,
    RecordMap,
    check_bytes,
    check_code,
    check_extensions,
    check_proof,
    check_text,
    check_texts,
    check_uint,
)
from sealbus.envelopes.trust.proof import Proof

_NOT_ASKED = frozenset(
    {
        Code.BAD_BODY,
        Code.RESOURCE_NOT_FOUND,
        Code.RESOURCE_UNAVAILABLE,
        Code.APPROVAL_FOREIGN,
        Code.APPROVAL_CLOSED,
        Code.APPROVAL_SELF,
        Code.APPROVAL_REPEATED,
        Code.APPROVAL_WEAK,
    }
)

_ANSWERED = frozenset({Code.DENIED, Code.OBLIGATION_UNKNOWN})

DECISION_CODES = _NOT_ASKED | _ANSWERED | {Code.POLICY_UNAVAILABLE, Code.POLICY_ERROR}
"""The known failures of steps 14 to 16: the codes that a decision which does not allow can have."""


RECORDED_BODY_BYTES: Final = 65_536
"""Longest recorded body. Of a longer body, only the hash in the header is kept."""

_HEADER_BYTES: Final = DEFAULT_LIMITS.header_bytes
_INPUT_BYTES: Final = DEFAULT_LIMITS.input_document_bytes
_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_ACTION: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")

# Named tuples: each message has a place and a decision, and a frozen dataclass costs 2 us more.


class StreamPlace(NamedTuple):
    """The place of a decided message in a stream: stream name, sequence (from 1) and stored time (microseconds).

    The constructor of the record checks it.
    """

    stream: str
    sequence: int
    stored: int

    @property
    def time(self) -> int:
        """Reference time of the archive profile: the stored time."""
        return self.stored


class CorePlace(NamedTuple):
    """The place of a decided message that no stream stored: the time at which it was opened (microseconds)."""

    opened: int

    @property
    def time(self) -> int:
        """Reference time of the archive profile: the time of opening."""
        return self.opened


class _Fields(NamedTuple):
    header: bytes
    proof: Proof
    action: str
    place: StreamPlace | CorePlace
    delivery: int
    allow: bool
    code: str | None
    input: bytes | None
    reasons: tuple[str, ...]
    obligations: bytes
    revision: str | None
    policy: str | None
    engine: str | None
    micros: int | None
    redacted: tuple[str, ...]
    body: bytes | None
    ext: Mapping[str, ExtValue]


class DecisionRecord(_Fields):
    """One decision, allow or not. Construction raises `SealError` for combinations that SPEC.md section 8 does not allow.

    `header` and `proof` are those of the decided message, as received; `archive` verifies them, this class does not.
    `input` is the exact JSON document that the engine read. `obligations` is a JSON array, or empty for none. `micros` is the
    time that the engine took, in microseconds. If the policy was not asked or did not answer, its fields are None.
    `redacted` are JSON pointers (RFC 6901): their values were replaced by null in `input` before it was recorded. Such a
    document is not the one that the engine read, and cannot be decided again. `code` is a `Code` or the text of a newer
    writer's code; combinations are checked for `DECISION_CODES` only. `body` is that of the decided message, if the recorder
    keeps bodies; `accept_decided` checks it. `ext` are entries that a newer writer may add; they are not interpreted.
    """

    __slots__ = ()

    def __new__(
        cls,
        header: bytes,
        proof: Proof,
        action: str,
        place: StreamPlace | CorePlace,
        delivery: int,
        allow: bool,
        code: str | None = None,
        input: bytes | None = None,  # noqa: A002  # the word of the policy engine
        reasons: tuple[str, ...] = (),
        obligations: bytes = b"",
        revision: str | None = None,
        policy: str | None = None,
        engine: str | None = None,
        micros: int | None = None,
        redacted: tuple[str, ...] = (),
        body: bytes | None = None,
        ext: Mapping[str, ExtValue] = NO_EXTENSIONS,
    ) -> Self:
        """Check all fields, by themselves and together."""
        # Comparisons are inlined: a call for each would cost more than all comparisons.
        if not 0 < len(header) <= _HEADER_BYTES:
            raise SealError("header is not 1 to 8,192 bytes")
        check_proof("proof", proof)
        stream = "-"
        if type(place) is StreamPlace:
            stream, sequence, stored = place
            check_uint("sequence", sequence, least=1)
            check_uint("stored", stored)
        else:
            check_uint("opened", place.time)
            if delivery != 1:
                raise SealError("delivery is not 1, though core NATS delivers once")
        _check_texts(action, stream, reasons, revision, policy, engine)
        if type(delivery) is not int or not 0 < delivery <= _MAX_INTEGER:
            raise SealError("delivery is not an integer from 1 to 2^53-1")
        if input is not None and not 0 < len(input) <= _INPUT_BYTES:
            raise SealError("input is not 1 to 65,536 bytes")
        if len(obligations) > _INPUT_BYTES:
            raise SealError("obligations are over 65,536 bytes")
        if micros is not None and (type(micros) is not int or not 0 <= micros <= _MAX_INTEGER):
            raise SealError("micros is not an integer from 0 to 2^53-1")
        if redacted:
            _check_redacted(input, redacted)
        if body is not None and len(body) > RECORDED_BODY_BYTES:
            raise SealError("body is over 65,536 bytes")
        if ext:
            check_extensions(ext)
        if (engine is None) is not (micros is None):
            raise SealError("engine and micros come together")
        if (code is None) is not allow:
            raise SealError("a decision has a code if it does not allow, and only then")
        if code is None or code in _ANSWERED:
            if input is None or revision is None or policy is None or engine is None:
                raise SealError("a policy's answer has input, revision, policy, engine and micros")
            if code is Code.OBLIGATION_UNKNOWN and not obligations:
                raise SealError(f"with {code} there are obligations")
        elif code in _NOT_ASKED:
            if (revision, policy, engine) != (None, None, None) or reasons or obligations:
                raise SealError(f"with {code} the policy was not asked")
        elif code not in DECISION_CODES:
            check_code("code", code)
        return super().__new__(
            cls, header, proof, action, place, delivery, allow, code,
            input, reasons, obligations, revision, policy, engine, micros, redacted, body, ext,
        )  # fmt: skip

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]  # the base is generic in its own type
        # `_replace` uses this, so its result is checked, too.
        return cls(*iterable)

    @property
    def kind(self) -> str:
        """The record's kind, `decision`."""
        return "decision"

    def __repr__(self) -> str:
        return f"DecisionRecord(action={self.action!r}, allow={self.allow!r}, code={self.code!r}, ...)"

    def encode(self) -> bytes:
        """Return the encoded map."""
        (
            header, proof, action, place, delivery, allow, code,
            input_, reasons, obligations, revision, policy, engine, micros, redacted, body, ext,
        ) = self  # fmt: skip
        # The constructor has checked every value, and the keys are inserted in order. So packing suffices, at a third of the
        # cost of `codec.encode`.
        record: dict[str, object] = {"act": action, "alw": allow}
        if body is not None:
            record["bdy"] = body
        if code is not None:
            record["cod"] = str(code)
        record["dlv"] = delivery
        if engine is not None:
            record["eng"] = engine
        if ext:
            record["ext"] = dict(ext)
        record["hdr"] = header
        if input_ is not None:
            record["inp"] = input_
        record["k"] = "decision"
        if micros is not None:
            record["mic"] = micros
        if obligations:
            record["obl"] = obligations
        if type(place) is CorePlace:
            record["opn"] = place.opened
        if policy is not None:
            record["pol"] = policy
        record["prf"] = proof
        if redacted:
            record["red"] = redacted
        if revision is not None:
            record["rev"] = revision
        if reasons:
            record["rsn"] = reasons
        if type(place) is StreamPlace:
            record["seq"] = place.sequence
            record["sto"] = place.stored
            record["str"] = place.stream
        record["v"] = 1
        return pack(record)

    @classmethod
    def from_keys(cls, keys: RecordMap) -> DecisionRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
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
            redacted=keys.some_texts("red"),
            body=keys.octets("bdy") if "bdy" in keys else None,
            ext=keys.extensions("ext"),
        )


@lru_cache(maxsize=1024)
def _check_texts(
    action: str, stream: str, reasons: tuple[str, ...], revision: str | None, policy: str | None, engine: str | None
) -> None:
    """Check all texts of a record. Cached, because the same texts come together again; refused texts are not cached."""
    check_text("action", action, least=1)
    if _ACTION.fullmatch(action) is None:
        raise SealError("action is not dotted tokens")
    check_text("stream", stream, least=1, most=255)
    check_texts("reasons", reasons)
    for name, text in (("revision", revision), ("policy", policy), ("engine", engine)):
        if text is not None:
            check_text(name, text)


def _check_redacted(document: bytes | None, redacted: tuple[str, ...]) -> None:
    if document is None:
        raise SealError("redacted without input")
    check_texts("redacted", redacted)
    if len(set(redacted)) != len(redacted) or not all(pointer.startswith("/") for pointer in redacted):
        raise SealError("redacted are not distinct JSON pointers below the document")
