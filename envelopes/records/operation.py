"""Records of what is no decision about a message: changes of the policy, starts of processes, and refused connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import (
    DIGEST_BYTES,
    NO_EXTENSIONS,
    ExtValue,
    RecordMap,
    check_bytes,
    check_code,
    check_extensions,
    check_text,
    check_uint,
)
from sealbus.envelopes.records.work import check_minute_counts

INSTANCE_BYTES = 16
"""Bytes of the random name of one run of a process, or of one count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRecord:
    """What its sender was about to store in the policy store: `digest` is H of the bytes, under `serial` of `part`.

    `action` is `push`, `rollback`, `deny` or `allow`, or the code of a newer writer. `target` is who is denied or
    allowed again, a kind and an id. `reason` is what the sender said. Both are empty if there is none. That a change came
    into force is shown by decisions and `policy` records.
    """

    kind: ClassVar[str] = "change"

    action: str
    part: str
    serial: int
    digest: bytes
    target: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        check_code("action", self.action)
        check_text("part", self.part, least=1)
        check_uint("serial", self.serial, least=1)
        check_bytes("digest", self.digest, least=DIGEST_BYTES, most=DIGEST_BYTES)
        check_text("target", self.target, most=DEFAULT_LIMITS.spiffe_id_bytes)
        check_text("reason", self.reason, most=DEFAULT_LIMITS.spiffe_id_bytes)

    def encode(self) -> bytes:
        """Return the encoded map."""
        record: dict[str, Value] = {
            "v": 1,
            "k": self.kind,
            "act": self.action,
            "par": self.part,
            "ser": self.serial,
            "sha": self.digest,
        }
        if self.target:
            record["tgt"] = self.target
        if self.reason:
            record["rsn"] = self.reason
        return encode(record, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes)

    @classmethod
    def from_keys(cls, keys: RecordMap) -> ChangeRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        return cls(
            action=keys.code("act"),
            part=keys.text("par"),
            serial=keys.uint("ser"),
            digest=keys.octets("sha"),
            target=keys.some_text("tgt"),
            reason=keys.some_text("rsn"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """The start or the end of one run of a process of the sender, which `instance` names.

    `action` is `start` or `end`, or the code of a newer writer. `version` is that of sealbus. `facts` are what the process
    declares of itself, such as the hash of a prompt; nothing verifies them.
    """

    kind: ClassVar[str] = "process"

    action: str
    instance: bytes
    version: str
    facts: Mapping[str, ExtValue] = field(default_factory=lambda: NO_EXTENSIONS)

    def __post_init__(self) -> None:
        check_code("action", self.action)
        check_bytes("instance", self.instance, least=INSTANCE_BYTES, most=INSTANCE_BYTES)
        check_text("version", self.version, least=1)
        check_extensions(self.facts)
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def encode(self) -> bytes:
        """Return the encoded map."""
        record: dict[str, Value] = {
            "v": 1,
            "k": self.kind,
            "act": self.action,
            "ins": self.instance,
            "ver": self.version,
        }
        if self.facts:
            record["fct"] = dict(self.facts)
        return encode(record)

    @classmethod
    def from_keys(cls, keys: RecordMap) -> ProcessRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        return cls(
            action=keys.code("act"),
            instance=keys.octets("ins"),
            version=keys.text("ver"),
            facts=keys.extensions("fct"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsRecord:
    """How many connections to NATS the sender refused, by code, in the minute that starts at `minute`.

    `instance` is random, so that equal counts of two senders with one SPIFFE ID are two records.
    """

    kind: ClassVar[str] = "connections"

    minute: int
    instance: bytes
    counts: Mapping[str, int]

    def __post_init__(self) -> None:
        check_minute_counts(self.minute, self.counts)
        check_bytes("instance", self.instance, least=INSTANCE_BYTES, most=INSTANCE_BYTES)
        object.__setattr__(self, "counts", MappingProxyType(dict(self.counts)))

    def encode(self) -> bytes:
        """Return the encoded map."""
        counts: dict[str, Value] = {str(code): count for code, count in self.counts.items()}
        return encode({"v": 1, "k": self.kind, "min": self.minute, "ins": self.instance, "cnt": counts})

    @classmethod
    def from_keys(cls, keys: RecordMap) -> ConnectionsRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        return cls(minute=keys.uint("min"), instance=keys.octets("ins"), counts=keys.counts("cnt"))
