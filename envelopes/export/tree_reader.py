"""The tree over the tiles of an export, put together again in order: tiles above, and the root at any size asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sealbus.envelopes.errors import Code
from sealbus.envelopes.export.finding import Finding, of_file
from sealbus.envelopes.export.tile_reader import TileResult
from sealbus.envelopes.log.frontier import Frontier, range_root
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName
from sealbus.envelopes.log.tiling import Tiling

__all__ = ["TreeReader"]

ReadTileFile = Callable[[TileName], bytes | None]


class TreeReader:
    """Takes the results of a log's tiles in order. Memory is that of the roots asked for, whatever the log's size."""

    def __init__(self, read: ReadTileFile, sizes: Iterable[int]) -> None:
        """`read` gives the file of a tile, None where it is missing; `sizes` are those whose roots will be asked for."""
        self._read = read
        self._wanted = set(sizes)
        self._roots: dict[int, bytes] = {}
        # Tile roots are the leaves of a tree whose tiles are those of the log, one level higher.
        self._above = Tiling()
        self._frontier = Frontier()
        self.findings: list[Finding] = []

    def take(self, result: TileResult) -> None:
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
        """Compare the tiles that never became full."""
        for name, data in self._above.partial():
            self._compare(name, data)

    def root_at(self, size: int) -> bytes:
        """Return the root of the first `size` entries, one of the sizes that were said; raise `KeyError` for others."""
        return self._roots[size] if size else range_root(())

    def _compare(self, name: TileName, computed: bytes) -> None:
        real = TileName(int(name.level) + 1, name.index, name.width)
        given = self._read(real)
        if given is not None and given != computed:
            self.findings.append(of_file(real.path, Code.BAD_TILE, "not what the messages give"))
