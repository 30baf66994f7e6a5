"""Mints a signed user context from a verified access token; nothing else of the token goes further than here.

Instead of the user's id a user context may hold a pseudonym, so that the id is in no message and no log. A pseudonym is
HMAC-SHA-256 under a key of the deployment, and cannot be turned back: the holder of the key can only check whether it is that
of a named user (`sealbus audit reveal`). A user keeps the same pseudonym while the key stays, so that policies, revocations
and resources can name it; without the key nobody can compute it from a list of ids.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.access_token import AccessToken
from sealbus.envelopes.errors import Code, ConfigurationError, IdentityUnavailable, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.user_context import ContextDraft, mint_context
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["KEY_BYTES", "PSEUDONYM_PREFIX", "Pseudonyms", "mint", "read_key", "write_pseudonym_key"]

_NO_REQUEST: Final[Mapping[str, str]] = {}

KEY_BYTES: Final = 32
PSEUDONYM_PREFIX: Final = "pseudonym:"
"""Prefix of every pseudonym, so that it is not taken for an id of the identity provider."""

_PSEUDONYM_CONTEXT: Final = b"sealbus.pseudonym.v1"
_KEY_FORM: Final = re.compile(rb"([0-9a-f]{64})\n?")
_FILE_BYTES: Final = 128
"""Bytes read of a key file: more than a key has."""


def mint(
    token: AccessToken,
    sealer: Sealer,
    *,
    transaction: bytes,
    trust_domain: TrustDomain,
    now: int,
    workload: SpiffeId | None,
    request: Mapping[str, str] = _NO_REQUEST,
    pseudonyms: Pseudonyms | None = None,
    limits: EdgeLimits = DEFAULT_EDGE_LIMITS,
) -> Statement:
    """Return the user context of `token`, signed by `sealer` at `now`, for `workload` alone if it is given.

    `transaction` are 16 random bytes, under which the records of all that follows are found. With `pseudonyms` it names the
    user by a pseudonym. `request` are facts about the HTTP request, such as `ip`. A chain may
    start with the context as long as the token lives and `limits` allow, and go on until `limits.context_end_seconds` from
    now.

    Raises `TokenRefused` for a token that has expired by now (`token_expired`) or holds more than a context can
    (`bad_token`), `IdentityUnavailable` if the sealer's credential has expired.
    """
    if now >= token.expires:
        raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
    if now >= sealer.expires:
        raise IdentityUnavailable("the edge's credential has expired")
    draft = ContextDraft(
        txn=transaction,
        aud=trust_domain,
        iat=now,
        exp=min(now + limits.context_start_seconds * SECOND, token.expires),
        end=now + limits.context_end_seconds * SECOND,
        sub=token.subject if pseudonyms is None else pseudonyms.of(token.issuer, token.subject),
        idp=token.issuer,
        sid=token.session,
        cid=token.client,
        scp=token.scope,
        clm=token.claims,
        ten=token.tenant,
        wkl=workload,
        acr=token.acr,
        amr=token.amr,
        aut=token.auth_time,
        req=request or None,
    )
    try:
        return mint_context(draft, sealer)
    except SealError as error:
        raise TokenRefused("more claims than a user context can hold") from error


class Pseudonyms:
    """The pseudonyms under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"a pseudonym key has {KEY_BYTES} bytes")
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms(...)"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return the pseudonyms under the key in `file`; raises as `read_key` does. Blocks."""
        return cls(read_key(file))

    def of(self, issuer: str, subject: str) -> str:
        """Return the pseudonym of the user whom `issuer` calls `subject`; users of two issuers never share one."""
        name = issuer.encode()
        message = _PSEUDONYM_CONTEXT + len(name).to_bytes(4, "big") + name + subject.encode()
        return PSEUDONYM_PREFIX + hmac.new(self._key, message, hashlib.sha256).hexdigest()


def read_key(file: Path) -> bytes:
    """Return the key of 32 bytes in `file`: 64 hexadecimal digits, readable by its owner alone (mode 0600).

    Raises `ConfigurationError` for any other file. Blocks.
    """
    try:
        # A FIFO in its place is refused, not waited for.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            about = os.fstat(opened.fileno())
            content = opened.read(_FILE_BYTES) if stat.S_ISREG(about.st_mode) else b""
    except OSError as error:
        raise ConfigurationError(f"the key {file} cannot be read: {error.strerror}") from error
    if stat.S_IMODE(about.st_mode) & 0o077:
        raise ConfigurationError(f"the key {file} can be read by others: chmod 600 it")
    found = _KEY_FORM.fullmatch(content)
    if found is None:
        raise ConfigurationError(f"{file} is not such a key: `sealbus edge pseudonym-key FILE` makes one")
    return bytes.fromhex(found[1].decode())


def write_pseudonym_key(file: Path) -> None:
    """Write a new random key to `file`, which must not exist yet, with mode 0600; raises `ConfigurationError`.

    Blocks until it is on the disk: pseudonyms under a lost key can never be revealed.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from error
