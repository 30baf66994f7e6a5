"""Files that are written whole and durably, and the errors of files as errors of configuration."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sealbus.envelopes.errors import ConfigurationError

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644


@contextmanager
def file_errors(problem: str) -> Iterator[None]:
    """Raise an `OSError` of the block as `ConfigurationError`: `problem`, such as "FILE cannot be read", and the reason."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{problem}: {error.strerror}") from error


def create_file(path: Path, data: bytes, *, mode: int) -> None:
    """Write `data` to `path`, which must not exist yet, and return once it is on the disk. Raises `OSError`.

    The file has `mode` from the moment it exists, so that others can never read a key.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return once the names in `folder` are on the disk, such as that of a replaced file. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` at `path` as `create_file` does, but by renaming a complete file over it: no reader sees a part of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        create_file(temporary, data, mode=mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
