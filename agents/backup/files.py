"""The files of a backup, written with their size and hash; and the files of the log and of the keys that it copies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from sealbus.agents.backup.manifest import BackedUpFile
from sealbus.agents.control.notary.keys import load_signers
from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, COSIGNED, FolderStore
from sealbus.agents.control.notary.log.ledger import last_place
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.checkpoint import parse_checkpoint
from sealbus.envelopes.log.note import NoteSigner, parse_note

_OWN_STATE: Final = ("notary.", "under-way")
"""Files of one notary, which another notary must not take over."""
_TRIES: Final = 3


class FileWriter:
    """Writes one new file of mode 0600, durable at the end; `written` is then its entry in the manifest. Its calls block."""

    def __init__(self, folder: Path, path: str, keeps: str = "") -> None:
        self._folder, self._path, self._keeps = folder, path, keeps
        self._digest, self._size = hashlib.sha256(), 0

    def __enter__(self) -> Self:
        target = self._folder / self._path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._digest.update(data)
        self._size += len(data)
        self._file.write(data)

    @property
    def written(self) -> BackedUpFile:
        """The file so far. Raises `BackupRefused` for a path that no manifest may name."""
        return BackedUpFile(path=self._path, size=self._size, sha256=self._digest.hexdigest(), keeps=self._keeps)


def log_end(folder: Path) -> int:
    """Return the last sequence in the log of `folder`; 0 if there is no log. The log is not verified.

    Raises `LogError` for a log that cannot be read.
    """
    store = FolderStore(folder)
    note = store.get(CHECKPOINT)
    size = parse_checkpoint(parse_note(note).text).size if note is not None else 0
    return last_place(store, size).sequence if size else 0


def copy_log(folder: Path, to: Path, under: str) -> list[BackedUpFile]:
    """Copy the log in `folder`, which may grow meanwhile, into `under` of the folder `to`; return the written files.

    The checkpoints are read first, that with a quorum of witnesses before the last: the files that these cover are there, and
    stay. Raises `ConfigurationError` without a log.
    """
    store = FolderStore(folder)
    cosigned, note = store.get(COSIGNED), store.get(CHECKPOINT)
    if note is None:
        raise ConfigurationError(f"{folder} holds no log with a checkpoint")
    copied: list[BackedUpFile] = []
    for path in _log_paths(folder):
        data = store.get(path)
        if data is not None:
            # A missing file is a partial tile that its full tile has replaced.
            copied.append(write_copy(to, f"{under}/{path}", data))
    if cosigned is not None:
        copied.append(write_copy(to, f"{under}/{COSIGNED}", cosigned))
    copied.append(write_copy(to, f"{under}/{CHECKPOINT}", note))
    return copied


def _log_paths(folder: Path) -> Iterator[str]:
    # Full tiles may replace partial ones meanwhile: a covered tile is in one listing or another.
    seen: set[str] = set()
    for _ in range(_TRIES):
        for parent, _, names in sorted(os.walk(folder)):
            for name in sorted(names):
                path = (Path(parent) / name).relative_to(folder).as_posix()
                if path not in seen and path not in {CHECKPOINT, COSIGNED} and not path.startswith(_OWN_STATE):
                    seen.add(path)
                    yield path


def write_copy(to: Path, path: str, data: bytes, keeps: str = "") -> BackedUpFile:
    """Write `data` to the new file `path` of the folder `to`; return its entry in the manifest."""
    with FileWriter(to, path, keeps) as writer:
        writer.write(data)
    return writer.written


def log_signers(settings: Settings) -> tuple[NoteSigner, ...]:
    """Return the keys of the log that the settings name, none if one of their files is not on this machine.

    Raises `ConfigurationError` for a file that holds no such key.
    """
    table = settings.control.notary
    if not table.origin or not table.keys or not all(path.exists() for path in table.keys):
        return ()
    return load_signers(table.keys, table.origin)


def key_files(settings: Settings) -> list[Path]:
    """Return the files of private keys in the settings: of notary, callout, revoker, policy server, edge and console."""
    control, edge = settings.control, settings.edge
    named = (
        *control.notary.keys,
        control.callout.issuer,
        control.callout.xkey,
        control.callout.nkey,
        control.revoker.key,
        settings.policy.serve_key,
        edge.key,
        edge.pseudonym_key,
        edge.nonce_key,
        edge.token_key,
        *(edge.mcp.state_keys if edge.mcp is not None else ()),
        *((edge.a2a.card_key, edge.a2a.push_key) if edge.a2a is not None else ()),
        settings.console.key,
    )
    return list(dict.fromkeys(path for path in named if path is not None))
