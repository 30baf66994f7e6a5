"""The manifest of a backup: its deployment, its streams in their order, and the size and hash of each file.

It is written last, so that a backup that was cut off has none; and it holds its own hash. The log's key signs it if that key
is on the machine: only for a backup with a signed manifest does a notary record that streams were restored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

from sealbus.bus.ports import JsonObject
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import BackupRefused, LogError
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier, sign_note, verify_note
from sealbus.envelopes.trust.names import is_token

MANIFEST: Final = "manifest.json"
STREAMS: Final = "streams"
LOG: Final = "log"
KEYS: Final = "keys"
_MOST_BYTES: Final = 67_108_864
_BLOCK: Final = 1_048_576
_FIRST: Final = "sealbus.backup.v1"
"""The first line of the note that signs a manifest: no other note of a log begins with it."""
_DAMAGED: Final = f"{MANIFEST} is damaged, or of another version of sealbus"


def is_audit(config: JsonObject) -> bool:
    """Return whether this is the configuration of an audit stream, of the current period or a former one."""
    subjects = config.get("subjects")
    named = subjects if isinstance(subjects, list) else []
    return SUBJECTS[AUDIT] in named or any(str(subject).startswith("closed.") for subject in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUpFile:
    """One file of a backup. `path` is relative to its folder; `keeps` is the original path of a key file."""

    path: str
    size: int
    sha256: str
    keeps: str = ""

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if not all(parts) or {".", ".."} & set(parts) or parts[0] not in (STREAMS, LOG, KEYS):
            raise BackupRefused(f"{MANIFEST}: {self.path[:200]!r} cannot be a file of a backup")

    def check(self, folder: Path) -> None:
        """Raise `BackupRefused` unless the file in `folder` has this size and hash."""
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
    """A stream of a backup: its configuration and state in JetStream's format, and its creation in microseconds."""

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
    """The contents of a backup. `streams` are in the order of copying; `taken` is its start in microseconds by our clock.

    `log_last` is the last sequence of the copied log, 0 without a log. `note` is signed by keys of the log `origin` and names
    the hash of all other members; it is empty if no key was on the machine.
    """

    version: str
    taken: int
    trust_domain: str
    origin: str
    streams: tuple[BackedUpStream, ...]
    files: tuple[BackedUpFile, ...]
    log_last: int = 0
    note: str = field(default="", repr=False)

    @property
    def hash(self) -> str:
        """The SHA-256 of everything but the note, in hex."""
        return _hash(self._body())

    @property
    def _text(self) -> str:
        return f"{_FIRST}\n{self.origin}\n{self.taken}\n{self.hash}\n"

    def signed(self, signers: Sequence[NoteSigner]) -> Manifest:
        """Return this manifest signed by the log's keys; unsigned without keys."""
        return replace(self, note=sign_note(self._text, signers).decode()) if signers else self

    def check_signed(self, verifiers: Sequence[NoteVerifier]) -> None:
        """Raise `BackupRefused` unless one of the log's keys has signed this manifest."""
        if not self.note:
            raise BackupRefused("its manifest is not signed")
        try:
            text = verify_note(self.note.encode(), verifiers).text
        except (LogError, UnicodeEncodeError) as error:
            raise BackupRefused("its manifest is not signed by a key of this log") from error
        if text != self._text:
            raise BackupRefused("its manifest is not the one that was signed")

    def check_of(self, trust_domain: str, origin: str) -> None:
        """Raise `BackupRefused` if it is of another trust domain or log. An empty `origin` stands for any log."""
        if self.trust_domain != trust_domain:
            raise BackupRefused(f"it is of {self.trust_domain}, and this deployment is {trust_domain}")
        if origin and self.origin and origin != self.origin:
            raise BackupRefused(f"its log is {self.origin[:200]}, and this deployment's is {origin}")

    @property
    def current_audit(self) -> BackedUpStream | None:
        """The stream that took records."""
        return next((stream for stream in self.streams if stream.current), None)

    def under(self, part: str) -> Iterator[BackedUpFile]:
        """Yield the files of one part: STREAMS, LOG or KEYS."""
        return (file for file in self.files if file.path.startswith(f"{part}/"))

    def _body(self) -> dict[str, object]:
        return {
            "v": 1,
            "sealbus": self.version,
            "taken": self.taken,
            "trust_domain": self.trust_domain,
            "origin": self.origin,
            "log_last": self.log_last,
            "streams": [{name: getattr(stream, name) for name in ("name", *_OF_STREAM)} for stream in self.streams],
            "files": [
                {name: getattr(file, name) for name in ("path", "size", "sha256", "keeps")} for file in self.files
            ],
        }

    def encode(self) -> bytes:
        """Return the file."""
        body = self._body()
        return (json.dumps({"sha256": _hash(body), "note": self.note, "backup": body}, indent=1) + "\n").encode()

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest in `folder`; raise `BackupRefused` if it is missing or was changed."""
        try:
            with (folder / MANIFEST).open("rb") as file:
                data = file.read(_MOST_BYTES)
        except FileNotFoundError as error:
            raise BackupRefused(f"{folder} holds no {MANIFEST}: it is no backup, or was cut off") from error
        try:
            document = json.loads(data)
            body = document["backup"]
            if document["sha256"] != _hash(body) or body["v"] != 1:
                raise BackupRefused(_DAMAGED)
            return cls(
                version=str(body["sealbus"]),
                taken=int(body["taken"]),
                trust_domain=str(body["trust_domain"]),
                origin=str(body["origin"]),
                log_last=int(body["log_last"]),
                streams=tuple(BackedUpStream(**stream) for stream in body["streams"]),
                files=tuple(BackedUpFile(**file) for file in body["files"]),
                note=str(document.get("note", "")),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise BackupRefused(_DAMAGED) from error


_OF_STREAM: Final = ("config", "state", "created", "messages", "first", "last")


def _hash(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
