"""Keep users' access tokens, encrypted, while they live, so that the exit can exchange them on the users' behalf.

An edge process keeps tokens in STATE, under a hash of user and client: `state.<edge>.token.<hash>`. A value holds only the
tokens of the last sessions, so that no user can fill the stream. The exit, another process, finds a token by the user context
of the message that it handles. Only these two have the key, a file; readers of the stream see the length of tokens. A value
is bound to its subject (AES-256-GCM with the subject as associated data), so that it cannot stand in for another user's. A
value that does not decrypt under this key and subject counts as missing.

A token that is bound to a key (`cnf`) is not kept: only its owner can use it.
"""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealbus.bus.ports import StoredValue
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.trust.caches import BoundedMap

_VERSION: Final = 2
_NONCE_BYTES: Final = 12
_TOKEN_BYTES: Final = 16_384
"""The longest token that the edge takes."""
_SESSIONS: Final = 8
"""Sessions of a user at a client whose tokens are kept; the one written longest ago is dropped."""
_KNOWN: Final = 16_384
"""Sessions whose last token a process remembers as kept; the oldest is forgotten, and its token is written again."""
_TRIES: Final = 4
"""How often another process may write first, or a replica may lag behind a write."""
_PAUSE_SECONDS: Final = 0.05


class Owner(NamedTuple):
    """The owner of a token: a user, by the name in user contexts, in one session of one client."""

    issuer: str
    user: str
    client: str
    session: str

    @classmethod
    def of(cls, context: UserContext) -> Owner:
        """Return the owner whose tokens belong to `context`."""
        return cls(context.idp, context.sub, context.cid, context.sid)


class KeptTokens:
    """The kept tokens under `key`, 32 bytes, of the edge whose subject token is `edge`."""

    def __init__(self, key: bytes, keyed: KeyValue, *, edge: str) -> None:
        self._cipher = AESGCM(key)
        self._keyed = keyed
        self._prefix = f"state.{edge}.token."
        self._known: BoundedMap[Owner, tuple[bytes, int]] = BoundedMap(_KNOWN)

    async def keep(self, token: str, owner: Owner, *, expires: int, now: int) -> None:
        """Keep `token` of `owner` until `expires` (microseconds), in place of an earlier token; raise `BusUnavailable`."""
        subject, digest = self._subject(owner), sha256(token.encode()).digest()
        last_digest, until = self._known.get(owner) or (b"", 0)
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
            raise BusUnavailable("a token could not be kept: other processes keep writing tokens of the same user")
        self._known.put(owner, (digest, expires))

    async def find_token(self, owner: Owner, *, now: int) -> str | None:
        """Return the token of `owner` that was kept last, if it still lives; raise `BusUnavailable`."""
        subject = self._subject(owner)
        for tried in range(_TRIES + 1):
            if tried:
                # The token may be just written, and a replica that lags behind answered.
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
        """Return the tokens in `value` that still live, by session, each after its expiry; the last written are last."""
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
