"""The files of an export in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class MemoryFiles:
    """Files in memory, by path."""

    files: Mapping[str, bytes] = field(repr=False)

    def paths(self) -> Iterator[str]:
        """Yield every file's path."""
        return iter(self.files)

    def read(self, path: str, most: int) -> bytes | None:
        """Return a file's first `most` bytes and at most one more."""
        data = self.files.get(path)
        return None if data is None else data[: most + 1]

    def open(self, path: str) -> AbstractContextManager[BinaryIO] | None:
        """Open a file."""
        data = self.files.get(path)
        return None if data is None else nullcontext(io.BytesIO(data))
