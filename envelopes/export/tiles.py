"""The tiles of an export: each, of up to 256 frames, is computed and compared alone; then the tree over them, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.export.approvals import ApprovalFact
from sealbus.envelopes.export.entries import EntryReader
from sealbus.envelopes.export.finding import Finding, of_file
from sealbus.envelopes.export.format import Frame, messages_path
from sealbus.envelopes.export.standing import GrantFact
from sealbus.envelopes.export.tally import Tally
from sealbus.envelopes.log.entries import ENTRY_BYTES
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName, encode_entries
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.log.tree_proofs import Frontier, range_root
from sealbus.envelopes.trust.merkle import leaf_hash, root

_ROW: Final = ENTRY_BYTES + 2
"""An entry after its length."""

ReadTileFile = Callable[[TileName], bytes | None]


@dataclass(frozen=True, slots=True)
class TileTask:
    """Tile number `index` of `width` entries. `prefixes` are the numbers of first entries whose roots are needed."""

    index: int
    width: int
    prefixes: tuple[int, ...] = ()
    only: frozenset[bytes] | None = None
    """Names of the only records to count; None for all."""

    @property
    def hashes(self) -> TileName:
        """The tile of hashes."""
        return TileName(0, self.index, self.width)

    @property
    def entries(self) -> TileName:
        """The tile of entries."""
        return TileName("entries", self.index, self.width)


@dataclass(frozen=True, slots=True)
class TileResult:
    """The result of one tile: the root of all its leaves, the roots of its `prefixes`, findings and counts."""

    task: TileTask
    root: bytes
    prefixes: Mapping[int, bytes]
    findings: Sequence[Finding]
    tally: Tally
    names: bytes = b""
    """The joined names of the counted records (`RepeatedRecords`)."""
    opening: Sequence[tuple[int, bytes]] = ()
    """Sequence and H(header) of messages of kind 0x00 that open."""
    approvals: Sequence[ApprovalFact] = ()
    """The facts about approvals in the tile's decisions, in the order of the log."""
    grants: Sequence[GrantFact] = ()
    """The facts about standing grants in the tile's decisions, in the order of the log."""


def read_tile(
    task: TileTask, frames: Iterable[Frame], reader: EntryReader, *, hashes: bytes | None, entries: bytes | None
) -> TileResult:
    """Read the frames of a tile. `hashes` and `entries` are the files of its tiles, None if missing.

    `frames` may raise `LogError` if their file is cut. Missing entries then have a placeholder in the tree.
    """
    findings: list[Finding] = []
    rows: list[bytes] = []
    sequences: list[int] = []
    reader.begin(task.only)
    try:
        for frame in _counted(frames, task.width):
            sequences.append(frame.sequence)
            rows.append(reader.read(frame))
    except LogError as error:
        findings.append(of_file(messages_path(task.index), error.code, error.detail))
    findings += _first_other(rows, sequences, entries)
    rows += [bytes(32)] * (task.width - len(rows))
    leaves = [leaf_hash(row) for row in rows]
    for name, stored, computed in (
        (task.hashes, hashes, b"".join(leaves)),
        (task.entries, entries, encode_entries(rows)),
    ):
        if stored is not None and stored != computed:
            findings.append(of_file(name.path, Code.BAD_TILE, "not what the messages give"))
    return TileResult(
        task=task,
        root=root(leaves),
        prefixes={width: root(leaves[:width]) for width in task.prefixes},
        findings=list(chain(findings, reader.findings)),
        tally=reader.tally,
        names=b"".join(reader.names),
        opening=reader.opening,
        approvals=reader.approvals,
        grants=reader.grants,
    )


def _first_other(rows: Sequence[bytes], sequences: Sequence[int], entries: bytes | None) -> list[Finding]:
    """Return a finding for the first message whose entry differs from the tile's. The tile itself names no message."""
    if entries is not None:
        for number, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
            if entries[number * _ROW : number * _ROW + _ROW] != encode_entries([row]):
                return [Finding("", sequence, Code.LOG_MISMATCH, "not the message that the log's entry covers")]
    return []


def _counted(frames: Iterable[Frame], width: int) -> Iterator[Frame]:
    """Yield `frames`; raise `LogError` (`bad_entry`) at a surplus frame, or at the end if frames are missing."""
    count = 0
    for count, frame in enumerate(frames, 1):
        if count > width:
            raise LogError(Code.BAD_ENTRY, "more frames than entries")
        yield frame
    if count < width:
        raise LogError(Code.BAD_ENTRY, "fewer frames than entries")


def tasks_of(size: int, sizes: Iterable[int]) -> Iterator[TileTask]:
    """Yield the tasks for a log of `size` entries, with the roots at `sizes`, each at most `size`."""
    wanted: dict[int, set[int]] = {}
    for total in sizes:
        index, width = divmod(total, TILE_WIDTH)
        if width:
            wanted.setdefault(index, set()).add(width)
    for index in range(-(-size // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - index * TILE_WIDTH)
        yield TileTask(index, width, tuple(sorted(wanted.get(index, ()))))


class TreeReader:
    """Builds the tree from the results of a log's tiles, in order. Memory has only the requested roots."""

    def __init__(self, read: ReadTileFile, sizes: Iterable[int]) -> None:
        """Start empty. `read` returns the file of a tile, or None if missing; `root_at` answers for `sizes`."""
        self._read = read
        self._wanted = set(sizes)
        self._roots: dict[int, bytes] = {}
        # Tile roots are the leaves of a tree whose tiles are those of the log, one level higher.
        self._above = TreeBuilder()
        self._frontier = Frontier()
        self.findings: list[Finding] = []

    def take_tile(self, result: TileResult) -> None:
        """Take the result of the next tile."""
        start = result.task.index * TILE_WIDTH
        for width, prefix in result.prefixes.items():
            self._roots[start + width] = range_root([*self._frontier.nodes, prefix])
        if result.task.width < TILE_WIDTH:
            self._roots[start + result.task.width] = range_root([*self._frontier.nodes, result.root])
            return
        self._frontier.append(result.root)
        for name, data in self._above.append(result.root):
            self._compare(name, data)
        if start + TILE_WIDTH in self._wanted:
            self._roots[start + TILE_WIDTH] = self._frontier.root()

    def end(self) -> None:
        """Compare the tiles that are not full."""
        for name, data in self._above.partial():
            self._compare(name, data)

    def root_at(self, size: int) -> bytes:
        """Return the root of the first `size` entries, one of the `sizes`; raise `KeyError` for others."""
        return self._roots[size] if size else range_root(())

    def _compare(self, name: TileName, computed: bytes) -> None:
        real = TileName(int(name.level) + 1, name.index, name.width)
        stored = self._read(real)
        if stored is not None and stored != computed:
            self.findings.append(of_file(real.path, Code.BAD_TILE, "not what the messages give"))
