"""What a bucket says of one object: the JSON of NATS' object store, parsed once and bounded (ADR-20)."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

__all__ = ["ObjectInfo", "digest_of", "parse_info"]

_NUID: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_NAME_BYTES: Final = 160
"""In base64url it is a third longer, and a subject has at most 255 bytes."""
_INFO_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object as its bucket describes it; nothing is verified. `sequence` is the stream's, of this description.

    `digest` is `SHA-256=` and base64url. A deleted object has neither chunks nor a digest.
    """

    name: str
    nuid: str
    size: int
    chunks: int
    digest: str
    sequence: int
    deleted: bool = False


def digest_of(content: bytes) -> str:
    """Return the digest of `content` as the object store writes it."""
    return "SHA-256=" + urlsafe_b64encode(hashlib.sha256(content).digest()).decode()


def parse_info(payload: bytes, *, sequence: int) -> ObjectInfo | None:
    """Return what `payload` says of an object; None for anything that is no such description, links among them."""
    try:
        said = json.loads(payload) if len(payload) <= _INFO_BYTES else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    name, nuid, digest = said.get("name"), said.get("nuid", ""), said.get("digest", "")
    size, chunks, deleted = said.get("size", 0), said.get("chunks", 0), said.get("deleted", False)
    if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= _NAME_BYTES:
        return None
    if not isinstance(nuid, str) or not isinstance(digest, str) or not isinstance(deleted, bool):
        return None
    if type(size) is not int or type(chunks) is not int or size < 0 or chunks < 0:
        return None
    if not deleted and _NUID.fullmatch(nuid) is None:
        return None
    return ObjectInfo(name=name, nuid=nuid, size=size, chunks=chunks, digest=digest, sequence=sequence, deleted=deleted)
