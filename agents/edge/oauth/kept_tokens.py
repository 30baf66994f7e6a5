"""Access tokens of users that the exit exchanges on their behalf: kept by the edge for as long as they live, encrypted.

An edge process keeps a token in STATE, under a hash of whose it is: `state.<edge>.token.<hash>`. The exit, which is another
process, finds it there by the user context of what it handles. Both have the key, a file, and nobody else; who reads the
stream sees how long a token is. A value is bound to its place (AES-256-GCM with the subject as associated data), so that none
is found in place of another's. What is not a token of that user by this key is as if it were not there.

A token that is bound to a key (`cnf`) is not kept: nobody but its owner could use it.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError
from sealbus.envelopes.message.user_context import UserContext

__all__ = ["KeptTokens", "Owner"]

_VERSION: Final = 1
_NONCE_BYTES: Final = 12
_TOKEN_BYTES: Final = 16_384
"""The longest token that the edge takes."""
_KNOWN: Final = 16_384
"""Tokens that a process remembers to have kept; the oldest gives way, and is kept again."""
_TRIES: Final = 4
"""How often another process may be the first to write, or a replica may not have what was written."""
_PAUSE_SECONDS: Final = 0.05


class Owner(NamedTuple):
    """Whose token it is: a user, as a user context names them, in one session of one client."""

    issuer: str
    user: str
    client: str
    session: str

    @classmethod
    def of(cls, context: UserContext) -> Owner:
        """Return whose tokens belong to `context`."""
        return cls(context.idp, context.sub, context.cid, context.sid)


class KeptTokens:
    """The kept tokens under `key`, 32 bytes, of the edge whose subject token is `edge`."""

    def __init__(self, key: bytes, keyed: KeyValue, *, edge: str) -> None:
        self._cipher = AESGCM(key)
        self._keyed = keyed
        self._prefix = f"state.{edge}.token."
        self._known: OrderedDict[bytes, int] = OrderedDict()

    async def keep(self, token: str, owner: Owner, *, expires: int, now: int) -> None:
        """Keep `token` of `owner` until `expires` (microseconds), in place of one from before; raise `BusUnavailable`."""
        subject = self._subject(owner)
        known = sha256(f"{subject} {token}".encode()).digest()
        if self._known.get(known, 0) > now:
            return
        nonce = os.urandom(_NONCE_BYTES)
        content = encode([_VERSION, expires, token], text_bytes=_TOKEN_BYTES)
        value = nonce + self._cipher.encrypt(nonce, content, subject.encode())
        for _ in range(_TRIES):
            there = await self._keyed.get(subject)
            if await self._keyed.replace(subject, value, last=there.sequence if there is not None else 0) is not None:
                break
        else:
            raise BusUnavailable("a token could not be kept: others keep some for the same user all the time")
        self._known[known] = expires
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    async def find(self, owner: Owner, *, now: int) -> str | None:
        """Return the token of `owner` that was kept last, if it still lives; raise `BusUnavailable`."""
        subject = self._subject(owner)
        found = await self._keyed.get(subject)
        for _ in range(_TRIES):
            if found is not None:
                break
            # Just written, and a replica answers that is behind.
            await asyncio.sleep(_PAUSE_SECONDS)
            found = await self._keyed.get(subject)
        if found is None:
            return None
        nonce, rest = found.payload[:_NONCE_BYTES], found.payload[_NONCE_BYTES:]
        try:
            content = decode(self._cipher.decrypt(nonce, rest, subject.encode()), text_bytes=_TOKEN_BYTES, step=0)
        except (InvalidTag, ValueError, EnvelopeError):
            return None
        match content:
            case [int(version), int(expires), str(token)] if version == _VERSION and now < expires:
                return token
            case _:
                return None

    def _subject(self, owner: Owner) -> str:
        return self._prefix + sha256(encode(list(owner))).hexdigest()[:32]
