"""The manifest of a backup: what was taken of which deployment, in which order, with the size and hash of each file.

It is written last, so that a backup that was cut off has none; and it holds its own hash. Neither is a signature: whoever may
write the backup can make another one. What a stream holds is signed by itself, and the log shows what is missing of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from sealbus.bus.ports import JsonObject
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import BackupRefused
from sealbus.envelopes.trust.names import is_token

__all__ = ["KEYS", "LOG", "MANIFEST", "STREAMS", "BackedUpFile", "BackedUpStream", "Manifest", "is_audit"]

MANIFEST: Final = "manifest.json"
STREAMS: Final = "streams"
LOG: Final = "log"
KEYS: Final = "keys"
_MOST_BYTES: Final = 67_108_864
_BLOCK: Final = 1_048_576
_DAMAGED: Final = f"{MANIFEST} is damaged, or of another version of sealbus"


def is_audit(config: JsonObject) -> bool:
    """Return whether this is the configuration of an audit stream, of the current period or a former one."""
    subjects = config.get("subjects")
    named = subjects if isinstance(subjects, list) else []
    return SUBJECTS[AUDIT] in named or any(str(one).startswith("closed.") for one in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUpFile:
    """One file of a backup. `path` is relative to its folder; `keeps` is the file that a key was read from."""

    path: str
    size: int
    sha256: str
    keeps: str = ""

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if not all(parts) or {".", ".."} & set(parts) or parts[0] not in (STREAMS, LOG, KEYS):
            raise BackupRefused(f"{MANIFEST}: {self.path[:200]!r} cannot be a file of a backup")

    def check(self, folder: Path) -> None:
        """Raise `BackupRefused` unless the file in `folder` is the one that was written."""
        digest, size = hashlib.sha256(), 0
        try:
            with (folder / self.path).open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
        except FileNotFoundError as error:
            raise BackupRefused(f"{self.path} is missing") from error
        if size != self.size:
            raise BackupRefused(f"{self.path} has {size} bytes instead of {self.size}")
        if digest.hexdigest() != self.sha256:
            raise BackupRefused(f"{self.path} was changed: its hash is another")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUpStream:
    """A stream as it was: its configuration and state in JetStream's words, and when it was created, in microseconds."""

    name: str
    config: JsonObject = field(repr=False)
    state: JsonObject = field(repr=False)
    created: int
    messages: int
    first: int
    last: int

    def __post_init__(self) -> None:
        if not is_token(self.name):
            raise BackupRefused(f"{MANIFEST}: {self.name[:200]!r} cannot be the name of a stream")

    @property
    def path(self) -> str:
        """The path of its snapshot."""
        return f"{STREAMS}/{self.name}.snapshot"

    @property
    def audit(self) -> bool:
        """Whether it holds records."""
        return is_audit(self.config)

    @property
    def current(self) -> bool:
        """Whether it takes records."""
        return SUBJECTS[AUDIT] in cast("list[object]", self.config.get("subjects") or [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds. `streams` are in the order in which they were taken; `taken` is microseconds by our clock.

    `log_last` is the last sequence of the log that was taken, 0 without one.
    """

    version: str
    taken: int
    trust_domain: str
    origin: str
    streams: tuple[BackedUpStream, ...]
    files: tuple[BackedUpFile, ...]
    log_last: int = 0

    @property
    def current_audit(self) -> BackedUpStream | None:
        """The stream that took records."""
        return next((one for one in self.streams if one.current), None)

    def under(self, what: str) -> Iterator[BackedUpFile]:
        """Yield the files of one part: STREAMS, LOG or KEYS."""
        return (one for one in self.files if one.path.startswith(f"{what}/"))

    def encode(self) -> bytes:
        """Return the file."""
        body = {
            "v": 1,
            "sealbus": self.version,
            "taken": self.taken,
            "trust_domain": self.trust_domain,
            "origin": self.origin,
            "log_last": self.log_last,
            "streams": [{name: getattr(one, name) for name in ("name", *_OF_STREAM)} for one in self.streams],
            "files": [{name: getattr(one, name) for name in ("path", "size", "sha256", "keeps")} for one in self.files],
        }
        return (json.dumps({"sha256": _hash(body), "backup": body}, indent=1) + "\n").encode()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest in `folder`; raise `BackupRefused` if there is none, or it is not as it was written."""
        try:
            with (folder / MANIFEST).open("rb") as file:
                data = file.read(_MOST_BYTES)
        except FileNotFoundError as error:
            raise BackupRefused(f"{folder} holds no {MANIFEST}: it is no backup, or was cut off") from error
        try:
            document = json.loads(data)
            body = document["backup"]
            whole = document["sha256"] == _hash(body) and body["v"] == 1
            manifest = cls(
                version=str(body["sealbus"]),
                taken=int(body["taken"]),
                trust_domain=str(body["trust_domain"]),
                origin=str(body["origin"]),
                log_last=int(body["log_last"]),
                streams=tuple(BackedUpStream(**one) for one in body["streams"]),
                files=tuple(BackedUpFile(**one) for one in body["files"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BackupRefused(_DAMAGED) from error
        if not whole:
            raise BackupRefused(_DAMAGED)
        return manifest


_OF_STREAM: Final = ("config", "state", "created", "messages", "first", "last")


def _hash(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
