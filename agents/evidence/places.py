"""Where the running deployment keeps its log: folder, stream, and what the log begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sealbus.agents.settings import Settings
from sealbus.envelopes.errors import ConfigurationError

__all__ = ["LogPlace"]


@dataclass(frozen=True, slots=True)
class LogPlace:
    """The folder of a log, the stream that it is of, and the previous log's checkpoint where it begins with one."""

    folder: Path
    stream: str = "AUDIT"
    previous: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, settings: Settings, folder: Path | None) -> LogPlace:
        """Return what `control.notary` says, with `folder` in place of its own where that is given.

        Raises `ConfigurationError` if neither says a folder, or the previous checkpoint cannot be read.
        """
        table = settings.control.notary
        chosen = folder or table.folder
        if chosen is None:
            raise ConfigurationError("control.notary.folder is not set, and no --log DIR: where the log is kept")
        if table.previous is None:
            return cls(chosen, table.stream)
        try:
            return cls(chosen, table.stream, table.previous.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"{table.previous} cannot be read: {error.strerror}") from error
