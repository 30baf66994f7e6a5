"""The seven kinds of message, and the header keys that each must and may have (SPEC.md section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.limits import SECOND


class Kind(StrEnum):
    """The kind of a message; the value is the text of header key `t`."""

    TASK = "task"
    CALL = "call"
    REPLY = "reply"
    CHUNK = "chunk"
    STATUS = "status"
    EVENT = "event"
    RECORD = "record"


class Profile(StrEnum):
    """The set of acceptance steps that apply (SPEC.md section 7). The subscription decides it, never the message."""

    LIVE = "live"
    RESULT = "result"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRule:
    """The rule for headers of one kind: required keys, optional keys, and the longest life.

    `must` and `may` include the keys that every kind has or may have. `life` bounds `exp - iat`, in microseconds.
    """

    must: frozenset[str]
    may: frozenset[str]
    life: int
    profile: Profile


_ALWAYS: Final = "t id iss to iat exp key crd dig typ"
_ANYWHERE: Final = "tid sch ext"
_DAY: Final = 86_400 * SECOND
_MINUTE: Final = 60 * SECOND


def _rule(must: str, may: str, life: int, profile: Profile) -> KindRule:
    return KindRule(
        must=frozenset(f"{_ALWAYS} {must}".split()),
        may=frozenset(f"{_ANYWHERE} {may}".split()),
        life=life,
        profile=profile,
    )


RULES: Final[Mapping[Kind, KindRule]] = MappingProxyType(
    {
        Kind.TASK: _rule("aud end", "ctx par grt idm re", _DAY, Profile.LIVE),
        Kind.CALL: _rule("aud end rpl", "ctx par grt idm re", _MINUTE, Profile.LIVE),
        Kind.REPLY: _rule("aud re", "", _MINUTE, Profile.RESULT),
        Kind.CHUNK: _rule("aud re seq", "fin", _MINUTE, Profile.RESULT),
        Kind.STATUS: _rule("aud re seq", "fin", _DAY, Profile.RESULT),
        Kind.EVENT: _rule("", "aud re idm", _DAY, Profile.LIVE),
        Kind.RECORD: _rule("", "", _DAY, Profile.ARCHIVE),
    }
)
"""The table of SPEC.md section 3, by kind."""

KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.value: kind for kind in Kind})
"""Kinds by their text. A lookup here does not raise on hostile text, as `Kind(text)` would."""
