"""A user context as text, as the token service hands it out: base64url of `[1, payload, proof, credential]`.

What is inside is the statement that travels in an envelope (SPEC.md sections 2 and 6), in the same canonical encoding.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from sealbus.envelopes.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.wire import Credential, Proof, Statement, check_attached

__all__ = ["CONTEXT_TOKEN_BYTES", "USER_CONTEXT_TYPE", "context_token", "parse_context_token"]

USER_CONTEXT_TYPE: Final = "urn:sealbus:params:oauth:token-type:user-context"
"""`requested_token_type` and `issued_token_type` of the token service (RFC 8693 section 3 lets anybody's URI stand there)."""

CONTEXT_TOKEN_BYTES: Final = 20_480
"""Characters of the text: a payload, a credential and a proof at their largest, and a third more for base64."""

_FORMAT: Final = 1


def context_token(statement: Statement) -> str:
    """Return `statement` as text."""
    proof, credential = statement.proof, statement.credential
    value: Value = [
        _FORMAT,
        statement.payload,
        [proof.size, proof.index, list(proof.path), proof.signature],
        [credential.kind, credential.token],
    ]
    return base64.urlsafe_b64encode(encode(value)).rstrip(b"=").decode("ascii")


def parse_context_token(text: str) -> Statement:
    """Return the statement that `text` encodes; nothing of it is verified.

    Raises `EnvelopeError` (`malformed` or `too_large`) for anything else.
    """
    if len(text) > CONTEXT_TOKEN_BYTES:
        raise EnvelopeError(Code.TOO_LARGE, 0, "context token")
    try:
        raw = text.encode("ascii")
        value = decode(base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True), step=0)
        # Values of any type may stand here: what is no statement does not encode to the same text again, or not at all.
        format_, payload, (size, index, path, signature), (kind, token) = value  # type: ignore[misc, str-unpack]
        statement = Statement(
            payload,  # type: ignore[arg-type]
            Proof(size, index, tuple(path), signature),  # type: ignore[arg-type]
            Credential(kind, token),  # type: ignore[arg-type]
        )
        if format_ != _FORMAT or context_token(statement) != text:
            raise EnvelopeError(Code.MALFORMED, 0, "context token")
        check_attached(statement, ())
    except (TypeError, ValueError, binascii.Error, SealError) as error:
        raise EnvelopeError(Code.MALFORMED, 0, "context token") from error
    return statement
