"""Checks the files of a log, in a folder or at an address, against its checkpoint: what is missing, altered, or beyond it.

The checkpoint's signature is trusted by a root file, and the tiles from the root of the tree downwards: a tile counts if the
tiles above lead to it. If a tile is damaged, the tiles below may lead to the same hash; then the damage ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from sealbus.agents.control.notary.log.folder_store import COSIGNED
from sealbus.envelopes.errors import LogError
from sealbus.envelopes.export.finding import Finding, FindingCode, of_file
from sealbus.envelopes.export.format import CHECKPOINT
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import Checkpoint, SignedCheckpoint
from sealbus.envelopes.log.note import keep_signatures
from sealbus.envelopes.log.places import parse_places
from sealbus.envelopes.log.tiles import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TiledTree,
    TileName,
    parse_entries,
    parse_hashes,
    tile_reader,
)
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.trust.merkle import leaf_hash, root

GetFile = Callable[[str], bytes | None]
"""Returns the file at a path of a log; None if there is none."""

_TILES: Final = "tile/"
_OTHER: Final = "not what the checkpoint covers"


@dataclass(slots=True)
class LogCheck:
    """The result of a check."""

    checkpoint: Checkpoint | None = None
    cosigners: tuple[str, ...] = ()
    """The witnesses of the last checkpoint with a quorum, by their names in the root's policy."""
    cosigned: int = 0
    """The size of that checkpoint; 0 if the root file demands no witnesses."""
    tiles: int = 0
    """Tiles that were read and are right."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return self.checkpoint is not None and not self.findings


def check_log(get: GetFile, trusted: Root, *, paths: Iterable[str] = (), entries: bool = True) -> LogCheck:
    """Check the log whose files `get` returns against its checkpoint, and that against `trusted`.

    `paths` are all files of a folder: tiles of older checkpoints among them are checked, and others are findings. Without
    `entries` only hashes are checked. Of places only the form is: no checkpoint covers them. Errors of `get` pass through.
    """
    report, listed = LogCheck(), [path for path in paths if path.startswith(_TILES)]
    # The older of the two first: a log may grow meanwhile.
    cosigned = get(COSIGNED) if trusted.policy is not None else None
    signed = _open(get(CHECKPOINT), CHECKPOINT, trusted, report)
    if signed is None:
        return report
    report.checkpoint = checkpoint = signed.checkpoint
    older, beyond = _sorted(listed, checkpoint.size, report)
    check = _TileCheck(get, checkpoint, older, report, entries=entries)
    check.run()
    if not check.broken:
        tree = TiledTree(checkpoint.size, tile_reader(get))
        for held in trusted.held:
            _check_prefix(held.checkpoint, "a checkpoint of the root file", tree, report)
        if trusted.policy is not None:
            _check_cosigned(cosigned, signed, trusted, tree, report)
    if beyond:
        # It may have grown meanwhile. What its new checkpoint covers is not beyond.
        newest = _open(get(CHECKPOINT), CHECKPOINT, trusted, report)
        beyond = [name for name in beyond if newest is None or not name.is_of(newest.checkpoint.size)]
    detail = f"beyond the checkpoint at {checkpoint.size}"
    report.findings += [of_file(name.path, FindingCode.UNKNOWN_FILE, detail) for name in beyond]
    return report


def _open(note: bytes | None, path: str, trusted: Root, report: LogCheck) -> SignedCheckpoint | None:
    """Open the checkpoint at `path`. Without a policy, cosignatures are left out: nobody could say whose they are."""
    if note is None:
        report.findings.append(of_file(path, FindingCode.MISSING_FILE))
        return None
    try:
        return trusted.open_note(note if trusted.policy is not None else keep_signatures(note, trusted.known_keys))
    except LogError as error:
        report.findings.append(of_file(path, error.code, error.detail))
        return None


def _check_cosigned(
    note: bytes | None, last: SignedCheckpoint, trusted: Root, tree: TiledTree, report: LogCheck
) -> None:
    """Check the last checkpoint with a quorum, which is `last` if that has one already."""
    signed = _open(note, COSIGNED, trusted, report)
    if signed is None:
        return
    try:
        signed = trusted.open_checkpoint(signed.note)
    except LogError as error:
        report.findings.append(of_file(COSIGNED, error.code, error.detail))
        return
    _check_prefix(signed.checkpoint, COSIGNED, tree, report)
    if trusted.has_quorum(last):
        signed = last
    report.cosigners, report.cosigned = signed.cosigners, signed.checkpoint.size


def _check_prefix(known: Checkpoint, name: str, tree: TiledTree, report: LogCheck) -> None:
    if known.size > tree.size:
        report.findings.append(
            of_file(CHECKPOINT, FindingCode.ROLLED_BACK, f"{name} is at {known.size}, and this at {tree.size}")
        )
    elif tree.root(known.size) != known.root:
        report.findings.append(of_file(CHECKPOINT, "inconsistent_log", f"{name} at {known.size} has another root"))


def _sorted(
    listed: Iterable[str], size: int, report: LogCheck
) -> tuple[dict[TileName, list[TileName]], list[TileName]]:
    """Return the tiles in the folder, by the full tile that each is or becomes, and those beyond the checkpoint."""
    older: dict[TileName, list[TileName]] = {}
    beyond: list[TileName] = []
    for path in sorted(listed):
        try:
            name = TileName.parse(path)
        except LogError:
            report.findings.append(of_file(path, FindingCode.UNKNOWN_FILE, "not the name of a tile"))
            continue
        if not name.is_of(size):
            beyond.append(name)
        else:
            older.setdefault(name.full, []).append(name)
    return older, beyond


class _TileCheck:
    """The tiles of one checkpoint."""

    def __init__(
        self,
        get: GetFile,
        checkpoint: Checkpoint,
        older: dict[TileName, list[TileName]],
        report: LogCheck,
        *,
        entries: bool,
    ) -> None:
        self.broken = False
        """Whether a tile of hashes is missing or altered."""
        self._get = get
        self._read = tile_reader(get)
        self._checkpoint = checkpoint
        self._older = older
        self._report = report
        self._entries = entries

    def run(self) -> None:
        """Check all."""
        for name, data in self._right_edge():
            self._accept(name, data)

    def _right_edge(self) -> list[tuple[TileName, bytes]]:
        """Return the partial tiles that lead to the checkpoint's root; none if no tiles do."""
        size, level, edge = self._checkpoint.size, 0, list[TileName]()
        while held := size >> (TILE_HEIGHT * level):
            if held % TILE_WIDTH:
                edge.append(TileName(level, held // TILE_WIDTH, held % TILE_WIDTH))
            level += 1
        stored = [self._stored(name) for name in edge]
        if self._leads([*zip(edge, stored, strict=True)]):
            return [(name, data) for name, data in zip(edge, stored, strict=True) if data is not None][::-1]
        self.broken = True
        choices = [
            [data for data in (known, self._rebuilt(name)) if data is not None]
            for name, known in zip(edge, stored, strict=True)
        ]
        for chosen in product(*choices):
            if self._leads([*zip(edge, chosen, strict=True)]):
                for name, known, data in zip(edge, stored, chosen, strict=True):
                    if known != data:
                        self._find(name)
                return [*zip(edge, chosen, strict=True)][::-1]
        for name in edge:
            if self._stored(name) is None:
                self._find(name)
        self._report.findings.append(of_file(CHECKPOINT, "log_mismatch", "the tiles do not lead to its root"))
        return []

    def _leads(self, edge: Iterable[tuple[TileName, bytes | None]]) -> bool:
        """Return whether the tiles `edge` lead to the checkpoint's root."""
        tiles = dict(edge)
        try:
            TreeBuilder.resume(self._checkpoint.size, self._checkpoint.root, lambda name: tiles[name] or b"")
        except LogError:
            return False
        return True

    def _accept(self, name: TileName, data: bytes) -> None:
        """Take `data` as the tile `name`, to which the root leads, and check what it covers."""
        self._report.tiles += 1
        self._check_older(name, data)
        if name.level == 0:
            if self._entries:
                self._check_entries(name, data)
                self._check_places(name)
            return
        for child, expected in zip(_children(name), parse_hashes(data, name.width), strict=True):
            stored = self._stored(child)
            if stored is not None and _root(stored) == expected:
                self._accept(child, stored)
                continue
            self.broken = True
            self._find(child)
            rebuilt = self._rebuilt(child)
            if rebuilt is not None and _root(rebuilt) == expected:
                self._accept(child, rebuilt)

    def _check_entries(self, name: TileName, data: bytes) -> None:
        entries = TileName("entries", name.index, name.width)
        stored = self._stored(entries)
        if stored is None or _leaves(stored, name.width) != data:
            self._find(entries)
            return
        self._report.tiles += 1
        self._check_older(entries, stored)

    def _check_places(self, name: TileName) -> None:
        places = TileName("places", name.index, name.width)
        stored = self._stored(places)
        try:
            parse_places(stored or b"", name.width)
        except LogError:
            self._find(places)
            return
        self._report.tiles += 1
        self._check_older(places, stored or b"")

    def _check_older(self, name: TileName, data: bytes) -> None:
        """Check the tiles of older checkpoints that this tile continues."""
        for older in self._older.get(name.full, ()):
            if older.width >= name.width:
                continue
            stored = self._get(older.path)
            # One that is gone since it was listed was removed because its full tile has come.
            if stored is not None and stored != data[: older.bytes]:
                self._report.findings.append(of_file(older.path, "bad_tile", _OTHER))

    def _stored(self, name: TileName) -> bytes | None:
        """Return the tile as it is, or None if it is missing or of another length."""
        try:
            data = self._read(name)
        except LogError:
            return None
        return data if len(data) == name.bytes else None

    def _find(self, name: TileName) -> None:
        """Add the finding that a tile is missing, cut, or altered."""
        try:
            data = self._read(name)
        except LogError:
            self._report.findings.append(of_file(name.path, FindingCode.MISSING_FILE))
            return
        detail = (
            _OTHER if len(data) == name.bytes else f"{len(data)} bytes, where a tile of {name.width} has {name.bytes}"
        )
        self._report.findings.append(of_file(name.path, "bad_tile", detail))

    def _rebuilt(self, name: TileName) -> bytes | None:
        """Return the tile as what is below gives it, or None if that is missing or has no such form."""
        if name.level == 0:
            data = self._stored(TileName("entries", name.index, name.width))
            return _leaves(data, name.width) if data is not None else None
        hashes: list[bytes] = []
        for child in _children(name):
            data = self._stored(child)
            if data is None:
                return None
            hashes.append(_root(data))
        return b"".join(hashes)


def _children(name: TileName) -> Iterator[TileName]:
    """Yield the full tiles whose roots the tile of hashes `name` has."""
    level = name.level if isinstance(name.level, int) else 0
    for number in range(name.width):
        yield TileName(level - 1, name.index * TILE_WIDTH + number)


def _root(data: bytes) -> bytes:
    """Return the root of a full tile of hashes."""
    return root(parse_hashes(data, len(data) // HASH_BYTES))


def _leaves(data: bytes, width: int) -> bytes | None:
    """Return the tile of hashes of a tile of entries; None for other bytes."""
    try:
        return b"".join(map(leaf_hash, parse_entries(data, width)))
    except LogError:
        return None
