"""The header: the signed part of a message, as a typed value (SPEC.md section 3; step 2)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from types import MappingProxyType
from typing import Final, NamedTuple, cast

from sealbus.envelopes.encoding.codec import is_text, pack, unpack
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.fields import ExtValue, check_extensions
from sealbus.envelopes.message.kinds import KINDS, RULES, Kind
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_TYPES: Final[Mapping[str, type]] = {
    "aud": str, "crd": bytes, "ctx": bytes, "dig": bytes, "end": int, "exp": int, "ext": dict, "fin": bool,
    "grt": tuple, "iat": int, "id": bytes, "idm": str, "iss": str, "key": bytes, "par": bytes, "re": bytes, "rpl": str,
    "sch": str, "seq": int, "t": str, "tid": bytes, "to": str, "typ": str,
}  # fmt: skip
"""Every key that a header of any kind may have, in the order in which they are encoded."""

_ORDER: Final = (
    "id", "iss", "to", "aud", "iat", "exp", "end", "key", "crd", "dig", "typ", "sch", "ctx", "par", "re", "rpl", "seq",
    "fin", "grt", "idm", "tid", "ext",
)  # fmt: skip
"""The keys in the order of the fields of `Header`, after `kind`."""

_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_GRANT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?:\.\*)?")
_LONGEST: Final = DEFAULT_LIMITS.live_seconds * SECOND
_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_SEQ_END: Final = 2**32
_ENTRIES: Final = len(_TYPES)
_TEXT_ITEMS: Final = DEFAULT_LIMITS.text_items
_RECORD: Final = Kind.RECORD


class Header(NamedTuple):
    """A header that passed step 2. `parse_header` and `make_header` alone make it, so that having it proves its form.

    Times are microseconds since the Unix epoch, hashes SHA-256. Absent entries are None; an absent `fin` is False. A named
    tuple, because a message has up to nine headers, and each frozen dataclass would cost 3 us more.
    """

    kind: Kind
    id: bytes
    iss: SpiffeId
    to: str
    aud: SpiffeId | None
    iat: int
    exp: int
    end: int | None
    key: PublicKey
    crd: bytes
    dig: bytes
    typ: str
    sch: str | None
    ctx: bytes | None
    par: bytes | None
    re: bytes | None
    rpl: str | None
    seq: int | None
    fin: bool
    grt: tuple[str, ...] | None
    idm: str | None
    tid: bytes | None
    ext: Mapping[str, ExtValue] | None
    raw: bytes
    """The bytes that were parsed. They are what the signature covers."""
    digest: bytes
    """H(header): the identity of the message."""


def is_uuid7(value: bytes) -> bool:
    """Return whether 16 bytes have the version and variant bits of a UUIDv7 (RFC 9562); its time is not checked."""
    return value[6] >> 4 == 7 and value[8] >> 6 == 2


def is_subject(text: str) -> bool:
    """Return whether `text` is tokens joined by dots, at most 255 bytes. `subjects` checks their meaning."""
    return len(text) <= DEFAULT_LIMITS.subject_bytes and _SUBJECT.fullmatch(text) is not None


def is_grant(text: str) -> bool:
    """Return whether `text` can stand in `grt`: an action, or `p.*` for all actions under `p.`; at most 256 bytes."""
    return len(text) <= DEFAULT_LIMITS.text_bytes and _GRANT.fullmatch(text) is not None


def parse_header(raw: bytes) -> Header:
    """Step 2: return the header that `raw` encodes, or raise `EnvelopeError` (`malformed`, step 2).

    Checks the encoding, exactly the keys of its kind, types, IDs, the key on the curve, life and order of times. The sender,
    the subject, the present time and the recipient are not checked. Step 1 checks the size of `raw`.
    """
    decoded = unpack(raw, items=_TEXT_ITEMS, entries=_ENTRIES, step=2)
    if type(decoded) is not dict:
        raise _malformed("not a map")
    return _checked(decoded, raw)


def make_header(entries: dict[str, object]) -> Header:
    """Return the header of `entries`, which are in the order of keys; sign its `raw`.

    The checks are those of `parse_header`, and `parse_header(raw)` returns an equal header. Raises `SealError`.
    """
    try:
        return _checked(entries, None)
    except EnvelopeError as error:
        raise SealError(error.detail) from error


_Values = tuple[
    bytes, str, str, str | None, int, int, int | None, bytes, bytes, bytes, str, str | None, bytes | None,
    bytes | None, bytes | None, str | None, int | None, bool | None, tuple[object, ...] | None, str | None,
    bytes | None, dict[object, object] | None,
]  # fmt: skip
"""The entries of a header in the order of `Header`, from `id` to `ext`; None for absent entries."""


class _Shape(NamedTuple):
    """The properties that a header's kind and keys decide. `pick` puts the values of its keys, and a None, in order."""

    kind: Kind
    life: int
    types: list[type]
    pick: Callable[[tuple[object, ...]], _Values]


@lru_cache(maxsize=1024)
def _shape(text: str, keys: tuple[str, ...]) -> _Shape:
    """Return the shape of a header of kind `text` with `keys` in this order, or refuse it.

    Senders use a few dozen shapes, which are cached. Refused shapes are not.
    """
    kind = KINDS.get(text)
    if kind is None:
        raise _malformed("t")
    rule = RULES[kind]
    present = frozenset(keys)
    if not rule.must <= present <= rule.must | rule.may:
        raise _malformed("keys of its kind")
    if tuple(sorted(keys)) != keys:
        raise _malformed("order of keys")
    places = {key: place for place, key in enumerate(keys)}
    types = [_TYPES[key] for key in keys]
    return _Shape(kind, rule.life, types, itemgetter(*[places.get(key, len(keys)) for key in _ORDER]))


@lru_cache(maxsize=1024)
def _addresses(iss: str, to: str, aud: str | None, typ: str, sch: str | None) -> tuple[SpiffeId, SpiffeId | None]:
    """Return the SPIFFE IDs in these entries, each checked. Cached, because they repeat from message to message."""
    if not is_subject(to):
        raise _malformed("to")
    if not is_text(typ) or (sch is not None and not is_text(sch)):
        raise _malformed("typ or sch")
    try:
        return SpiffeId.parse(iss), SpiffeId.parse(aud) if aud is not None else None
    except EnvelopeError as error:
        raise error.at_step(2) from error


def _checked(decoded: dict[str, object], raw: bytes | None) -> Header:
    """Return the header of `decoded`, each entry checked. `raw` is its encoding; if it is None, the encoding is made here."""
    text = decoded.get("t")
    if type(text) is not str:
        raise _malformed("t")
    kind, life, types, pick = _shape(text, tuple(decoded))
    values = decoded.values()
    if [*map(type, values)] != types:
        raise _malformed("type of an entry")
    (
        ident, iss_text, to, aud_text, iat, exp, end, key_bytes, crd, dig, typ, sch, ctx, par, re_, rpl, seq, fin, grt,
        idm, tid, ext,
    ) = pick((*values, None))  # fmt: skip
    _check_id_and_times(kind, life, ident, iat, exp, end)
    if (
        len(crd) != 32
        or len(dig) != 32
        or (ctx is not None and len(ctx) != 32)
        or (par is not None and len(par) != 32)
        or (re_ is not None and len(re_) != 32)
    ):
        raise _malformed("length of crd, dig, ctx, par or re")
    if rpl is not None and not is_subject(rpl):
        raise _malformed("rpl")
    if idm is not None and not is_text(idm):
        raise _malformed("idm")
    if (seq is not None and not 0 <= seq < _SEQ_END) or fin is False or (tid is not None and len(tid) != 16):
        raise _malformed("seq, fin or tid")
    iss, aud = _addresses(iss_text, to, aud_text, typ, sch)
    key = PublicKey.parse(key_bytes)
    grants = _grants(grt) if grt is not None else None
    extensions = _extensions(ext) if ext is not None else None
    if raw is None:
        raw = pack(decoded)
    # In the order of the class, without its `__new__`: 25 named arguments cost half as much as all checks.
    checked = (
        kind, ident, iss, to, aud, iat, exp, end, key, crd, dig, typ, sch, ctx, par, re_, rpl, seq, fin is not None,
        grants, idm, tid, extensions, raw, sha256(raw).digest(),
    )  # fmt: skip
    return tuple.__new__(Header, checked)


def _check_id_and_times(kind: Kind, life: int, ident: bytes, iat: int, exp: int, end: int | None) -> None:
    """Raise `EnvelopeError` (`malformed`, step 2) unless a header of `kind` may have this id and these times.

    `life` is the longest life of the kind.
    """
    # Instead of a UUIDv7, a record may have the guard id of section 7, which is any 16 bytes.
    if len(ident) != 16 or not (kind is _RECORD or is_uuid7(ident)):
        raise _malformed("id")
    if not 0 <= iat < exp <= _MAX_INTEGER or exp - iat > life:
        raise _malformed("iat or exp")
    if end is not None and not (exp <= end <= _MAX_INTEGER and end - iat <= _LONGEST):
        raise _malformed("end")


def _grants(items: tuple[object, ...]) -> tuple[str, ...]:
    # The decoder has bounded parsed headers. Here and below, the same bounds hold for headers that are being made.
    if len(items) > DEFAULT_LIMITS.text_items or not all(type(item) is str and is_grant(item) for item in items):
        raise _malformed("grt")
    return cast("tuple[str, ...]", items)


def _extensions(entries: dict[object, object]) -> Mapping[str, ExtValue]:
    extensions = cast("dict[str, ExtValue]", entries)
    try:
        check_extensions(extensions)
    except SealError as error:
        raise _malformed(error.detail) from error
    return MappingProxyType(extensions)


def _malformed(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.MALFORMED, 2, f"header: {detail}")
