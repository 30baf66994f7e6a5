"""Looks for secrets in what a run left behind, in the forms in which secrets travel (pure)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

__all__ = ["FORBIDDEN", "Finding", "Group", "Kept", "Place", "Secret", "forms", "search"]

_SEEN_BYTES = 8
"""Bytes by which a place is compared with all needles at once; nothing shorter is looked for."""

_ENCODED = re.compile(rb"[A-Za-z0-9_+/-]{24,}={0,2}")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}){16,}")


class Kept(StrEnum):
    """What a secret is, and by that where it may be."""

    SECRET = "secret"
    """Tokens, codes, keys: nowhere."""
    CREDENTIAL = "credential"
    """JWT-SVIDs and signatures of contexts: in messages, where their receiver needs them."""
    BODY = "body"
    """What is said in bodies: in the messages themselves, and in the samples of refused ones."""
    TEXT = "text"
    """What the errors of handlers and loaders say: in these errors."""


class Group(StrEnum):
    """Where a run leaves text behind."""

    LOGS = "logs"
    OUTPUT = "output"
    ERRORS = "errors"
    """Texts and reprs of every exception that went through a frame of sealbus."""
    OWN_ERRORS = "own errors"
    """Those of them that are of sealbus's own classes: what its callers see."""
    MESSAGES = "messages"
    REFUSALS = "refusals"
    EVIDENCE = "evidence"
    """The messages of the audit stream, as they are stored."""
    RECORDS = "records"
    """Decoded audit records: input documents, reasons, obligations."""
    FILES = "files"


_SAID: Final = frozenset({Group.LOGS, Group.OUTPUT, Group.OWN_ERRORS, Group.RECORDS, Group.FILES})

FORBIDDEN: Final[Mapping[Kept, frozenset[Group]]] = MappingProxyType(
    {
        Kept.SECRET: frozenset(Group),
        Kept.CREDENTIAL: _SAID | {Group.ERRORS},
        Kept.BODY: _SAID | {Group.EVIDENCE},
        Kept.TEXT: frozenset(Group) - {Group.ERRORS, Group.OWN_ERRORS},
    }
)
"""Where what must not be."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret; `name` is all that a finding says of it."""

    name: str
    kept: Kept
    value: bytes

    def __post_init__(self) -> None:
        assert len(self.value) >= _SEEN_BYTES, self.name

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"


@dataclass(frozen=True, slots=True)
class Place:
    """Some bytes that were left behind, with a name by which they can be found again."""

    group: Group
    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret that is where it must not be."""

    secret: str
    form: str
    group: Group
    place: str


def forms(value: bytes) -> dict[str, bytes]:
    """Return the forms of `value`, also those in which it stands in the middle of something longer that was encoded."""
    found = {
        "plain": value,
        "url-quoted": quote(value, safe="").encode(),
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "escaped": repr(value)[2:-1].encode(),
    }
    for before in range(3):
        # Whatever stands before and after changes the characters at the ends, which are left out.
        text = base64.b64encode(bytes(before) + value)
        inner = text[-(-before * 8 // 6) : len(text) - (4 if (before + len(value)) % 3 else 0)]
        found[f"base64 at {before}"] = inner
        found[f"base64url at {before}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return {form: needle for form, needle in found.items() if len(needle) >= _SEEN_BYTES}


def search(secrets: Iterable[Secret], places: Iterable[Place]) -> list[Finding]:
    """Return the secrets that stand where they must not be, in one of their forms or encoded again, each once a place."""
    by_start: dict[bytes, list[tuple[bytes, str, Secret]]] = {}
    for secret in secrets:
        for form, needle in forms(secret.value).items():
            by_start.setdefault(needle[:_SEEN_BYTES], []).append((needle, form, secret))
    found: dict[tuple[str, Group, str], Finding] = {}
    for place in places:
        for layer, content in _layers(place.content):
            for needle, form, secret in _hits(by_start, content):
                if place.group in FORBIDDEN[secret.kept] and needle in content:
                    said = f"{form}{layer}"
                    found.setdefault(
                        (secret.name, place.group, place.name), Finding(secret.name, said, place.group, place.name)
                    )
    return list(found.values())


def _hits(
    by_start: dict[bytes, list[tuple[bytes, str, Secret]]], content: bytes
) -> Iterator[tuple[bytes, str, Secret]]:
    """Yield the needles whose beginning stands in `content`: one pass, however many needles there are."""
    size = _SEEN_BYTES
    for start in by_start.keys() & {content[at : at + size] for at in range(len(content) - size + 1)}:
        yield from by_start[start]


def _layers(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the content and what is encoded in it."""
    yield "", content
    decoded = [_decoded(run) for run in _ENCODED.findall(content)]
    yield " in base64", b"\n".join(decoded)
    yield " in hex", b"\n".join(binascii.unhexlify(run) for run in _HEX.findall(content))


def _decoded(run: bytes) -> bytes:
    text = run.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    # A last character alone holds no whole byte.
    text = text[: len(text) - (len(text) % 4 == 1)]
    return base64.b64decode(text + b"=" * (-len(text) % 4))
