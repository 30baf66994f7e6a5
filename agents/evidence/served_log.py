"""A log at an address (C2SP tlog-tiles): its files over HTTP, and a copy of it in a folder that grows with it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2

from sealbus.agents.control.notary.log.folder_store import COSIGNED, FolderStore
from sealbus.agents.evidence.fsck import GetFile
from sealbus.envelopes.errors import Code, ConfigurationError, LogError, StateUnavailable
from sealbus.envelopes.export.format import CHECKPOINT
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import Checkpoint, SignedCheckpoint
from sealbus.envelopes.log.note import keep_signatures
from sealbus.envelopes.log.places import parse_places
from sealbus.envelopes.log.tiles import TILE_WIDTH, TiledTree, TileName, parse_entries, parse_hashes, tile_reader
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.trust.merkle import leaf_hash

_SECONDS: Final = 30.0
_FENCE: Final = 1
_KEPT: Final = 256
"""Files that are fetched before they are stored."""


def is_address(text: str) -> bool:
    """Return whether `text` is the address of a log, not a folder."""
    return text.startswith(("https://", "http://"))


@contextmanager
def opened_log(address: str) -> Iterator[GetFile]:
    """Yield a function that returns the file at a path of the log at `address`, None if there is none.

    It raises `StateUnavailable` if the address does not answer, and `ConfigurationError` for entries that it does not show.
    Whoever answers need not be trusted: the caller checks what comes.
    """
    with httpx2.Client(
        verify=ssl.create_default_context(),
        headers={"Accept-Encoding": "identity", "User-Agent": "sealbus"},
        timeout=_SECONDS,
        follow_redirects=False,
        trust_env=False,
    ) as client:
        yield lambda path: _get(client, f"{address.rstrip('/')}/{path}")


def _get(client: httpx2.Client, url: str) -> bytes | None:
    data = bytearray()
    try:
        with client.stream("GET", url) as answer:
            for chunk in answer.iter_raw():
                data += chunk
                if len(data) > DEFAULT_LIMITS.note_bytes:
                    break
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise StateUnavailable(f"{url} does not answer: {str(error) or type(error).__name__}") from error
    match answer.status_code:
        case 200:
            return bytes(data)
        case 404 | 410:
            return None
        case 401 | 403:
            raise ConfigurationError(f"{url} is not shown to you (status {answer.status_code}): try --hashes-only")
        case status:
            raise StateUnavailable(f"{url} answers with status {status}")


def copy_log(get: GetFile, folder: Path, trusted: Root, *, entries: bool = True) -> Checkpoint:
    """Bring the copy in `folder` up to the checkpoint of the log whose files `get` returns, and return that.

    Only what leads from the checkpoint of the copy to the new one is fetched, and nothing counts before it is checked.
    Raises `LogError`: as `Root.open_checkpoint` does; `inconsistent_log` if the log does not extend the copy, or what
    witnesses cosigned; `log_mismatch` or `bad_tile` if its tiles do not lead to its checkpoint. Errors of `get` pass
    through, and `StateUnavailable`.
    """
    # In this order: a checkpoint with a quorum is never after the last one.
    cosigned = get(COSIGNED) if trusted.policy is not None else None
    if (note := get(CHECKPOINT)) is None:
        raise ConfigurationError("the log has no checkpoint yet")
    signed = trusted.open_note(_own(note, trusted))
    store = FolderStore(folder)
    store.enter()
    try:
        store.claim(_FENCE)
        known = store.get(CHECKPOINT)
        old = trusted.open_note(known).checkpoint if known is not None else None
        if old is not None and old.size > signed.checkpoint.size:
            raise LogError(Code.INCONSISTENT_LOG, f"at {signed.checkpoint.size}, and the copy has {old.size} entries")
        _check_cosigned(cosigned, trusted, store)
        signed = _with_more_cosigners(signed, known, trusted)
        _copy_tiles(get, store, old, signed, entries=entries)
        if cosigned is not None:
            _check_prefix(trusted.open_checkpoint(cosigned).checkpoint, signed.checkpoint, store)
            store.keep(_FENCE, {COSIGNED: cosigned})
    finally:
        store.leave()
    return signed.checkpoint


def _copy_tiles(
    get: GetFile, store: FolderStore, old: Checkpoint | None, signed: SignedCheckpoint, *, entries: bool
) -> None:
    """Store the tiles after `old` and then the checkpoint. Tiles above level 0 are made here."""
    checkpoint, read, files = signed.checkpoint, tile_reader(get), dict[str, bytes]()
    start = old.size if old is not None else 0
    tree = TreeBuilder.resume(start, old.root, tile_reader(store.get)) if old is not None else TreeBuilder()
    for index in range(start // TILE_WIDTH, -(-checkpoint.size // TILE_WIDTH)):
        width = min(TILE_WIDTH, checkpoint.size - index * TILE_WIDTH)
        leaves = parse_hashes(read(TileName(0, index, width)), width)
        had = tree.size - index * TILE_WIDTH
        if had and leaves[:had] != parse_hashes(tile_reader(store.get)(TileName(0, index, had)), had):
            # What the copy has is not asked of the tree again, so it must be what is served.
            raise LogError(Code.INCONSISTENT_LOG, f"tile {index} does not begin with what the copy has")
        if entries:
            rows, places = (read(TileName(level, index, width)) for level in ("entries", "places"))
            if leaves != tuple(map(leaf_hash, parse_entries(rows, width))):
                raise LogError(Code.LOG_MISMATCH, f"the entries of tile {index} do not lead to its hashes")
            parse_places(places, width)
            files |= {TileName("entries", index, width).path: rows, TileName("places", index, width).path: places}
        for leaf in leaves[had:]:
            files |= {name.path: data for name, data in tree.append(leaf)}
        if len(files) >= _KEPT:
            store.keep(_FENCE, files)
            files = {}
    if tree.root() != checkpoint.root:
        if old is not None:
            raise LogError(
                Code.INCONSISTENT_LOG, f"the tiles after the copy's {old.size} do not lead to the checkpoint"
            )
        raise LogError(Code.LOG_MISMATCH, "the tiles do not lead to the checkpoint")
    store.commit(_FENCE, {**files, **{name.path: data for name, data in tree.partial()}}, signed.note)


def _check_cosigned(cosigned: bytes | None, trusted: Root, store: FolderStore) -> None:
    """Raise `LogError` (`inconsistent_log`) if what witnesses have cosigned lies before what the copy has of that."""
    known = store.get(COSIGNED) if trusted.policy is not None else None
    if known is None:
        return
    had = trusted.open_checkpoint(known).checkpoint.size
    if cosigned is None or trusted.open_checkpoint(cosigned).checkpoint.size < had:
        raise LogError(Code.INCONSISTENT_LOG, f"the copy has what witnesses cosigned at {had}, and the log does not")


def _with_more_cosigners(signed: SignedCheckpoint, known: bytes | None, trusted: Root) -> SignedCheckpoint:
    """Return the copy's checkpoint in place of the same one with fewer cosignatures."""
    if known is None:
        return signed
    had = trusted.open_note(known)
    return had if had.checkpoint == signed.checkpoint and len(had.cosigners) > len(signed.cosigners) else signed


def _check_prefix(cosigned: Checkpoint, last: Checkpoint, store: FolderStore) -> None:
    """Raise `LogError` (`inconsistent_log`) unless the copied log begins with the log at `cosigned`."""
    if cosigned.size > last.size:
        raise LogError(Code.INCONSISTENT_LOG, f"at {last.size}, and witnesses have cosigned {cosigned.size} entries")
    if TiledTree(last.size, tile_reader(store.get)).root(cosigned.size) != cosigned.root:
        raise LogError(Code.INCONSISTENT_LOG, f"witnesses have cosigned another log at {cosigned.size}")


def _own(note: bytes, trusted: Root) -> bytes:
    """Return the note without cosignatures if nobody could say whose they are."""
    return note if trusted.policy is not None else keep_signatures(note, trusted.known_keys)
