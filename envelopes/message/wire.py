"""The envelope on the wire: one array of seven (SPEC.md section 2; step 1)."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from sealbus.envelopes.encoding.codec import array_length, pack, unpack
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.proof import Credential, Proof

FORMAT: Final = 1
"""The format that this code reads and writes."""
FORMATS: Final = frozenset({FORMAT})

_ELEMENTS: Final = 7
_ANCESTORS_AT: Final = 6
_START: Final = b"\x97\x01"
"""An array of seven whose first element is format 1."""
_HEADER_BYTES: Final = DEFAULT_LIMITS.header_bytes
_BODY_BYTES: Final = DEFAULT_LIMITS.body_bytes
_CONTEXT_BYTES: Final = DEFAULT_LIMITS.context_bytes
_TOKEN_BYTES: Final = DEFAULT_LIMITS.token_bytes
_BATCH_LEAVES: Final = DEFAULT_LIMITS.batch_leaves
_PROOF_NODES: Final = DEFAULT_LIMITS.proof_nodes
_ANCESTORS: Final = DEFAULT_LIMITS.ancestors
_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_ARRAY_ITEMS: Final = max(_PROOF_NODES, _ANCESTORS, _ELEMENTS)
_new: Final = tuple.__new__
"""Makes a named tuple in half the time of its own `__new__`, which is written in Python."""

# Named tuples, because a message has up to twenty of these, and a frozen dataclass costs several times as much. No `repr`
# shows a payload or a token.


class Statement(NamedTuple):
    """A signed statement that is not a message: the user context (SPEC.md section 6)."""

    payload: bytes
    proof: Proof
    credential: Credential

    def __repr__(self) -> str:
        return "Statement(...)"


class Ancestor(NamedTuple):
    """An earlier message of the chain, without its body: header bytes, proof, credential."""

    header: bytes
    proof: Proof
    credential: Credential


class Envelope(NamedTuple):
    """An envelope that passed step 1: well formed and within limits. Nothing is verified."""

    format: int
    header: bytes
    body: bytes
    proof: Proof
    credential: Credential
    context: Statement | None
    ancestors: tuple[Ancestor, ...]
    """The parent first, the root last."""

    def __repr__(self) -> str:
        return f"Envelope(format={self.format!r}, header={self.header!r}, ...)"


def parse_envelope(data: bytes, formats: AbstractSet[int] = FORMATS) -> Envelope:
    """Step 1: return the envelope that `data` encodes; `formats` are the formats that the reader accepts.

    Raises `EnvelopeError` (step 1). `unsupported_format`: by element 0 alone. `too_large`: the whole, the header, the body, a
    token or the context's payload is over its limit. `chain_too_long`: over 8 ancestors. `malformed`: any other fault. The
    bytes of header and payload are not parsed.
    """
    if data[:2] != _START or FORMAT not in formats:
        _judge_format(data, formats & FORMATS)
    if len(data) > DEFAULT_LIMITS.envelope_bytes:
        raise _refused(Code.TOO_LARGE, "envelope")
    try:
        elements = unpack(data, items=_ARRAY_ITEMS, entries=0)
    except EnvelopeError:
        if (array_length(data, _ELEMENTS, _ANCESTORS_AT) or 0) > _ANCESTORS:
            raise _refused(Code.CHAIN_TOO_LONG, "ancestors") from None
        raise
    return _envelope(elements)


def encode_envelope(envelope: Envelope) -> bytes:
    """Return the wire form of `envelope`; raise `SealError` if `parse_envelope` would refuse it.

    The total size needs no check: parts within their limits together stay below its limit.
    """
    try:
        return pack(_envelope(envelope))
    except EnvelopeError as error:
        raise SealError(f"envelope: {error}") from error


def check_attached(context: Statement | None, ancestors: tuple[Ancestor, ...]) -> None:
    """Raise `SealError` if `parse_envelope` would refuse this context or these ancestors."""
    try:
        _ancestors(ancestors)
        if context is not None:
            _statement(context)
    except EnvelopeError as error:
        raise SealError(f"envelope: {error}") from error


def _judge_format(data: bytes, readable: AbstractSet[int]) -> None:
    """Refuse a format that is not `readable`. The decoder refuses bytes that start with no format."""
    count = data[0] if data else 0
    # Array headers: 1 to 15 elements, else a length of 16 or 32 bits.
    start = 1 if 0x91 <= count <= 0x9F else {0xDC: 3, 0xDD: 5}.get(count)
    if start is None or start >= len(data):
        return
    lead = data[start]
    width = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(lead, 0)
    digits = data[start + 1 : start + 1 + width]
    if lead > 0x7F and not (width and len(digits) == width):
        return
    if (int.from_bytes(digits, "big") if width else lead) not in readable:
        raise _refused(Code.UNSUPPORTED_FORMAT, "format")


def _envelope(value: object) -> Envelope:
    """Return the envelope in nested tuples, each node checked by its exact type."""
    format_, header, body, proof, credential, context, ancestors = _array(value, _ELEMENTS, "envelope")
    if type(format_) is not int or format_ != FORMAT:
        raise _refused(Code.MALFORMED, "format")
    parts = (
        format_,
        _bytes(header, _HEADER_BYTES, "header"),
        _bytes(body, _BODY_BYTES, "body"),
        _proof(proof),
        _credential(credential),
        _statement(context) if context is not None else None,
        _ancestors(ancestors) if ancestors != () else (),
    )
    return _new(Envelope, parts)


def _array(value: object, length: int, name: str) -> tuple[object, ...]:
    if not isinstance(value, tuple) or len(value) != length:
        raise _refused(Code.MALFORMED, name)
    return value


def _bytes(value: object, limit: int, name: str) -> bytes:
    if type(value) is not bytes:
        raise _refused(Code.MALFORMED, name)
    if len(value) > limit:
        raise _refused(Code.TOO_LARGE, name)
    return value


def _proof(value: object) -> Proof:
    size, index, path, signature = _array(value, 4, "proof")
    if type(size) is not int or type(index) is not int or not 0 <= index < size <= _BATCH_LEAVES:
        raise _refused(Code.MALFORMED, "proof size or index")
    if not isinstance(path, tuple) or len(path) > _PROOF_NODES:
        raise _refused(Code.MALFORMED, "proof path")
    for node in path:
        if type(node) is not bytes or len(node) != 32:
            raise _refused(Code.MALFORMED, "proof path")
    if type(signature) is not bytes or len(signature) != 64:
        raise _refused(Code.MALFORMED, "signature")
    return _new(Proof, (size, index, path, signature))


def _credential(value: object) -> Credential:
    kind, token = _array(value, 2, "credential")
    if type(kind) is not int or not 0 <= kind <= _MAX_INTEGER:
        raise _refused(Code.MALFORMED, "credential kind")
    return _new(Credential, (kind, _bytes(token, _TOKEN_BYTES, "credential token")))


def _statement(value: object) -> Statement:
    payload, proof, credential = _array(value, 3, "context")
    parts = (_bytes(payload, _CONTEXT_BYTES, "context payload"), _proof(proof), _credential(credential))
    return _new(Statement, parts)


def _ancestors(value: object) -> tuple[Ancestor, ...]:
    if not isinstance(value, tuple):
        raise _refused(Code.MALFORMED, "ancestors")
    if len(value) > _ANCESTORS:
        raise _refused(Code.CHAIN_TOO_LONG, "ancestors")
    return tuple([_ancestor(link) for link in value])


def _ancestor(value: object) -> Ancestor:
    header, proof, credential = _array(value, 3, "ancestor")
    return Ancestor(_bytes(header, _HEADER_BYTES, "ancestor header"), _proof(proof), _credential(credential))


def _refused(code: Code, detail: str) -> EnvelopeError:
    return EnvelopeError(code, 1, detail)
