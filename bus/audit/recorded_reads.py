"""Remembers which decisions about answers have a record; the same decision is then only counted (SPEC.md section 8).

A status stays in its stream for a day, and a permitted reader can read it as often as it likes. Each read is decided. One
record is written for the same message, user, session, client, policy, revocations and verdict.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Final

from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.user_context import UserContext

MOST: Final = 65_536
"""Decisions that are remembered, some 150 bytes each. The least recently used is forgotten, and recorded again."""


def read_key(
    digest: bytes, user: UserContext | None, *, revision: str, serial: int, code: str, reasons: tuple[str, ...] = ()
) -> bytes:
    """Return the key of a decision about the answer with H(header) `digest`, read for `user`.

    `revision` is the policy's, `serial` the revocations'. `code` is the verdict, empty if the read is allowed.
    """
    reader: list[Value] = []
    if user is not None:
        kind = user.typ.value if user.typ is not None else ""
        domain = user.dom.name if user.dom is not None else ""
        reader = [user.idp, user.sub, kind, domain, user.sid, user.cid]
    parts: list[Value] = [digest, reader, revision, serial, code, list(reasons)]
    return sha256(encode(parts, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes)).digest()


class RecordedReads:
    """The decisions of one process that have a record, or are about to have one."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        if key not in self._keys:
            return False
        self._keys.move_to_end(key)
        return True

    def add(self, key: bytes) -> None:
        """Note that a decision is recorded."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        while len(self._keys) > self._most:
            self._keys.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """Note that a record was not stored after all: the next decision with this key is recorded."""
        self._keys.pop(key, None)
