"""One tile of an export, verified wherever there is a core for it: in this process or in one of a pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sealbus.agents.evidence.files import ExportFiles
from sealbus.envelopes.export.entry_reader import EntryReader
from sealbus.envelopes.export.frames import messages_path, read_frames
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.tally import Span
from sealbus.envelopes.export.tile_reader import TileResult, TileTask, read_tile
from sealbus.envelopes.export.trust_archive import ArchivedBundle, TrustArchive
from sealbus.envelopes.log.tiles import TileName
from sealbus.envelopes.spiffe_id import TrustDomain
from sealbus.envelopes.trust import JwtBundle

__all__ = ["Segment", "SegmentReader", "begin_worker", "read_in_worker", "tile_bytes"]

_HASH_ROW = 32
_ENTRY_ROW = 34


class Segment(NamedTuple):
    """All that a process needs to read any tile of one export, as values that can be sent to it."""

    files: ExportFiles
    root: bytes
    """The root file."""
    bundles: tuple[tuple[int, str, bytes], ...]
    """The trust archive: since when, of which trust domain, the JWK set."""
    span: Span

    @classmethod
    def of(cls, files: ExportFiles, root: Root, archive: TrustArchive, span: Span) -> Segment:
        """Return what processes get."""
        bundles = tuple((since, bundle.trust_domain.name, bundle.jwks) for since, bundle in archive)
        return cls(files, root.encode(), bundles, span)


@dataclass(slots=True)
class SegmentReader:
    """Reads tiles of one export, and remembers what it has verified from one to the next."""

    segment: Segment
    _reader: EntryReader = field(init=False)

    def __post_init__(self) -> None:
        archive = TrustArchive(
            ArchivedBundle(since, JwtBundle.parse(TrustDomain(name), jwks))
            for since, name, jwks in self.segment.bundles
        )
        self._reader = EntryReader(Root.parse(self.segment.root), archive, span=self.segment.span)

    def read(self, task: TileTask) -> TileResult:
        """Verify one tile."""
        files = self.segment.files
        hashes, entries = tile_bytes(files, task.hashes), tile_bytes(files, task.entries)
        opened = files.open(messages_path(task.index))
        if opened is None:
            return read_tile(task, (), self._reader, hashes=hashes, entries=entries)
        with opened as file:
            return read_tile(task, read_frames(file.read), self._reader, hashes=hashes, entries=entries)


def tile_bytes(files: ExportFiles, name: TileName) -> bytes | None:
    """Return the file of a tile, and never more of it than a byte too many; None if it is missing."""
    return files.read(name.path, name.width * (_ENTRY_ROW if name.level == "entries" else _HASH_ROW))


_readers: list[SegmentReader] = []
"""The reader of a worker process: one export for all its life."""


def begin_worker(segment: Segment) -> None:
    """Make this worker process ready to read tiles."""
    _readers[:] = [SegmentReader(segment)]


def read_in_worker(task: TileTask) -> TileResult:
    """Verify one tile in a worker process."""
    return _readers[0].read(task)
