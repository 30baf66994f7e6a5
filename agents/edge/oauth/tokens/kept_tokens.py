"""Access tokens of users that the exit exchanges on their behalf: kept by the edge for as long as they live, encrypted.

An edge process keeps a token in STATE, under a hash of its user and client: `state.<edge>.token.<hash>`. There are the tokens
of the last sessions, so that no user can fill the stream, which everybody needs. The exit, which is another process, finds
one there by the user context of what it handles. Both have the key, a file, and nobody else; who reads the stream sees how
long tokens are. A value is bound to its place (AES-256-GCM with the subject as associated data), so that none is found in
place of another's. What is not a token of that user by this key is as if it were not there.

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

from sealbus.bus.ports import StoredValue
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError
from sealbus.envelopes.message.user_context import UserContext

_VERSION: Final = 2
_NONCE_BYTES: Final = 12
_TOKEN_BYTES: Final = 16_384
"""The longest token that the edge takes."""
_SESSIONS: Final = 8
"""Sessions of a user at a client whose tokens are kept; the one that was written longest ago gives way."""
_KNOWN: Final = 16_384
"""Sessions whose last token a process remembers to have kept; the oldest gives way, and its token is kept again."""
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
        self._known: OrderedDict[Owner, tuple[bytes, int]] = OrderedDict()

    async def keep(self, token: str, owner: Owner, *, expires: int, now: int) -> None:
        """Keep `token` of `owner` until `expires` (microseconds), in place of one from before; raise `BusUnavailable`."""
        subject, digest = self._subject(owner), sha256(token.encode()).digest()
        last_digest, until = self._known.get(owner, (b"", 0))
        if last_digest == digest and now < until:
            return
        for _ in range(_TRIES):
            there = await self._keyed.get(subject)
            tokens = self._opened(subject, there, now=now)
            tokens.pop(owner.session, None)
            tokens[owner.session] = expires, token
            value = self._sealed(subject, dict(list(tokens.items())[-_SESSIONS:]))
            if await self._keyed.replace(subject, value, last=there.sequence if there is not None else 0) is not None:
                break
        else:
            raise BusUnavailable("a token could not be kept: others keep some for the same user all the time")
        self._known[owner] = digest, expires
        self._known.move_to_end(owner)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    async def find_token(self, owner: Owner, *, now: int) -> str | None:
        """Return the token of `owner` that was kept last, if it still lives; raise `BusUnavailable`."""
        subject = self._subject(owner)
        for tried in range(_TRIES + 1):
            if tried:
                # Just written, and a replica answers that is behind.
                await asyncio.sleep(_PAUSE_SECONDS)
            tokens = self._opened(subject, await self._keyed.get(subject), now=now)
            if owner.session in tokens:
                return tokens[owner.session][1]
        return None

    def _sealed(self, subject: str, tokens: dict[str, tuple[int, str]]) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        entries: list[Value] = [[session, expires, token] for session, (expires, token) in tokens.items()]
        return nonce + self._cipher.encrypt(
            nonce, encode([_VERSION, entries], text_bytes=_TOKEN_BYTES), subject.encode()
        )

    def _opened(self, subject: str, value: StoredValue | None, *, now: int) -> dict[str, tuple[int, str]]:
        """Return the tokens in `value` that still live, with their ends, by session; those written last are last."""
        payload = value.payload if value is not None else b""
        nonce, sealed = payload[:_NONCE_BYTES], payload[_NONCE_BYTES:]
        try:
            content = decode(self._cipher.decrypt(nonce, sealed, subject.encode()), text_bytes=_TOKEN_BYTES, step=0)
        except (InvalidTag, ValueError, EnvelopeError):
            return {}
        tokens: dict[str, tuple[int, str]] = {}
        match content:
            case [int(version), list(entries)] if version == _VERSION:
                for entry in entries:
                    match entry:
                        case [str(session), int(expires), str(token)] if now < expires:
                            tokens[session] = expires, token
        return tokens

    def _subject(self, owner: Owner) -> str:
        return self._prefix + sha256(encode([owner.issuer, owner.user, owner.client])).hexdigest()[:32]
