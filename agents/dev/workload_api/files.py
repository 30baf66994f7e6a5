"""Small files that other processes read: written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["PRIVATE", "PUBLIC", "replace_file"]

PRIVATE = 0o600
PUBLIC = 0o644


def replace_file(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` at `path` by renaming a complete file over it, so that no reader sees half of it.

    The file has `mode` from the moment it exists: a key is never readable by others, not even briefly.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
