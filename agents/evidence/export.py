"""Exports a log from a running deployment: the notary's tiles unchanged, the messages of its stream, its policies.

The log's places give the order of the messages. The policy bundles that the log names come from the notary's archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, Final

from sealbus.agents.control.notary.log.folder_store import COSIGNED
from sealbus.bus.ports import Transport
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.export.format import CHECKPOINT, Frame, encode_frame, messages_path
from sealbus.envelopes.export.latest import LATEST, encode_latest
from sealbus.envelopes.export.policy_files import POLICY_FILE_BYTES, PolicyFiles, policy_digest, policy_path
from sealbus.envelopes.export.tiles import tasks_of
from sealbus.envelopes.export.trust import NotaryMessages
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import SignedCheckpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import keep_signatures
from sealbus.envelopes.log.places import PLACE_BYTES, Place, parse_places
from sealbus.envelopes.log.restoration import restoration_path
from sealbus.envelopes.log.tiles import TILE_WIDTH, TiledTree, TileName, grown_tiles, parse_entries
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_NAMED: Final = 100
"""Most missing sequences that are listed; the others are counted."""
_ROWS: Final = {"entries": 34, "places": PLACE_BYTES}

GetFile = Callable[[str], bytes | None]


async def export_log(
    folder: Path,
    *,
    get: Callable[[str], bytes | None],
    transport: Transport,
    root: Root,
    stream: str = AUDIT,
    copy: str | None = None,
    previous: bytes = b"",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Written:
    """Write the log that `get` returns by path, with the messages of `stream` and its policies, into the new `folder`.

    The log is written up to its last checkpoint that `root` leads to, or `LogError` is raised; verification checks the
    rest. If `root` has a policy, that is the last checkpoint with a quorum, and a later one is written beside it. Signatures
    by keys that `root` does not have are left out. `copy` is a mirror to read in place of `stream`. `previous` is the
    checkpoint that the log begins with, if any. `progress` gets the number of written entries, and of all. Raises
    `ConfigurationError` for a folder that is not empty and for a log without a checkpoint, `BusUnavailable`.
    """
    signed, later = await asyncio.to_thread(_last_checkpoints, get, root)
    size = signed.checkpoint.size
    writer = await asyncio.to_thread(
        lambda: ExportWriter(folder, size, get, stream=stream, previous=previous, notaries=root.notaries)
    )
    try:
        if (first := writer.next) is not None:
            async with aclosing(transport.read(copy or stream, [SUBJECTS[AUDIT]], start=first)) as batches:
                async for batch in batches:
                    messages = [
                        (delivery.arrival.sequence, delivery.arrival.stored, delivery.payload)
                        for delivery in batch
                        if delivery.arrival is not None
                    ]
                    await asyncio.to_thread(writer.take_messages, messages)
                    progress(writer.written.entries, size)
                    if writer.next is None:
                        break
        return await asyncio.to_thread(writer.end, signed.note, later)
    finally:
        writer.close()


def _last_checkpoints(get: GetFile, root: Root) -> tuple[SignedCheckpoint, SignedCheckpoint | None]:
    """Return the last checkpoint that `root` leads to, and the log's last one if that is later and has no quorum."""
    note = get(CHECKPOINT)
    if note is None:
        raise ConfigurationError("the log has no checkpoint yet")
    latest = root.open_note(keep_signatures(note, root.known_keys))
    cosigned = None if root.has_quorum(latest) else get(COSIGNED)
    if cosigned is None:
        return root.open_checkpoint(latest.note), None
    signed = root.open_checkpoint(keep_signatures(cosigned, root.known_keys))
    return signed, latest if latest.checkpoint.size > signed.checkpoint.size else None


def log_files(folder: Path) -> Callable[[str], bytes | None]:
    """Return a function that reads the files of the log in a notary's `folder`; raise `ConfigurationError` without a log."""
    if not (folder / CHECKPOINT).is_file():
        raise ConfigurationError(f"{folder} holds no log with a checkpoint")

    def get(path: str) -> bytes | None:
        try:
            with (folder / path).open("rb") as file:
                most = DEFAULT_LIMITS.envelope_bytes if policy_digest(path) is None else POLICY_FILE_BYTES
                return file.read(most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"{folder / path} cannot be read: {error.strerror}") from error

    return get


def with_policies(get: GetFile, folder: Path) -> GetFile:
    """Return `get`, with policy bundles that it does not have from `folder`: a copy of a notary's folder of policies."""

    def get_any(path: str) -> bytes | None:
        found = get(path)
        if found is None and policy_digest(path) is not None:
            try:
                with (folder / Path(path).name).open("rb") as file:
                    return file.read(POLICY_FILE_BYTES)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise ConfigurationError(f"{folder} cannot be read: {error.strerror}") from error
        return found

    return get_any


@dataclass(slots=True)
class Written:
    """The result of an export, and the differences of log and stream, which verification also reports."""

    entries: int = 0
    following: int = 0
    """Entries that follow in a later checkpoint, which has no quorum."""
    missing: list[int] = field(default_factory=list)
    """The first sequences that the log has and the stream lacks."""
    missing_count: int = 0
    policies: int = 0
    """Policy bundles that were written."""
    missing_policies: list[str] = field(default_factory=list)
    """Paths of bundles that the log names and the archive lacks."""

    @property
    def whole(self) -> bool:
        """Whether all messages and policies that the log covers are there."""
        return not (self.missing_count or self.missing_policies)


class ExportWriter:
    """A writer of the log of `size` entries that `get` returns by path; its stream's messages are passed in order.

    `notaries` are the senders whose messages name policy bundles. Calls block. Raises `ConfigurationError` unless `folder` is
    new or empty. A message that the log has and the stream lacks is written without its bytes, so that it does not verify.
    Raises `LogError` (`bad_tile`) for a missing tile.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        get: GetFile,
        *,
        stream: str,
        previous: bytes = b"",
        notaries: Iterable[SpiffeId] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigurationError(f"{folder} is not empty: an export is written into a new folder")
        self.written = Written()
        self._folder = folder
        self._size = size
        self._get = get
        self._beginning = {EntryKind.CREATION: stream.encode(), EntryKind.PREVIOUS: previous}
        self._messages = NotaryMessages(notaries)
        self._policies = PolicyFiles()
        self._places = self._pairs()
        self._place: Place | None = None
        self._restorations = self._restored()
        self._count = 0
        self._file: BinaryIO | None = None
        self._advance()

    @property
    def next(self) -> int | None:
        """The sequence of the next message; None once all are there."""
        return self._place.sequence if self._place is not None else None

    def take_messages(self, messages: Iterable[tuple[int, int, bytes]]) -> None:
        """Take messages in order: sequence, stored time and payload of each. Messages outside the log are left out."""
        for sequence, stored, payload in messages:
            while self._place is not None and self._place.sequence < sequence:
                self._miss(self._place)
            if self._place is not None and self._place.sequence == sequence:
                self._write(Frame(self._place.kind, sequence, stored, payload))
                self._advance()

    def end(self, note: bytes, later: SignedCheckpoint | None = None) -> Written:
        """Write tiles, policies and, last of all, the checkpoint, without which the folder is no export.

        `later` is the log's latest checkpoint, if that is a later one without a quorum.
        """
        while self._place is not None:
            self._miss(self._place)
        self.close()
        for name in grown_tiles(0, self._size):
            if name.level != "places":
                self._store(name.path, self._tile(name))
        self._store_policies()
        if later is not None:
            self.written.following = later.checkpoint.size - self._size
            path = TiledTree(later.checkpoint.size, self._tile).consistency(self._size)
            self._store(LATEST, encode_latest(self._size, path, later.note))
        self._store(CHECKPOINT, note)
        return self.written

    def close(self) -> None:
        """Close the file that is being written."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _advance(self) -> None:
        """Go to the next place of a message of the stream, and write the frames before it."""
        for place, following in self._places:
            if place.kind in (EntryKind.UNVERIFIED, EntryKind.VERIFIED):
                if any(self._count < at and last < place.sequence for at, last in self._restorations):
                    self._write(Frame(EntryKind.LOST, place.sequence, 0, self._entry(self._count)))
                    continue
                self._place = place
                return
            data = self._beginning.get(place.kind)
            if place.kind is EntryKind.RESTORED:
                data = self._get(restoration_path(place.time)) or b""
            elif data is None:
                # A gap ends before the next message, and without a next message it has no entry.
                count = following.sequence - place.sequence if following is not None else 0
                data = max(count, 0).to_bytes(8, "big")
            self._write(Frame(place.kind, place.sequence, place.time, data))
        self._place = None

    def _restored(self) -> list[tuple[int, int]]:
        """Return for each restoration the number of its entry, and the last sequence of the stream after it."""
        kind = EntryKind.RESTORED
        return [(at, place.sequence) for at, place in enumerate(self._all_places()) if place.kind is kind]

    def _entry(self, number: int) -> bytes:
        index, row = divmod(number, TILE_WIDTH)
        width = min(TILE_WIDTH, self._size - index * TILE_WIDTH)
        return parse_entries(self._tile(TileName("entries", index, width)), width)[row]

    def _pairs(self) -> Iterator[tuple[Place, Place | None]]:
        """Yield each place with the one after it."""
        ended: tuple[Place | None, ...] = (None,)
        for place, following in pairwise(chain(self._all_places(), ended)):
            if place is not None:
                yield place, following

    def _all_places(self) -> Iterator[Place]:
        for task in tasks_of(self._size, ()):
            name = TileName("places", task.index, task.width)
            yield from parse_places(self._tile(name), task.width)

    def _miss(self, place: Place) -> None:
        self.written.missing_count += 1
        if len(self.written.missing) < _NAMED:
            self.written.missing.append(place.sequence)
        self._write(Frame(place.kind, place.sequence, place.time, b""))
        self._advance()

    def _write(self, frame: Frame) -> None:
        if self._count % TILE_WIDTH == 0:
            self.close()
            path = self._folder / messages_path(self._count // TILE_WIDTH)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        if self._file is None:
            raise ConfigurationError("a closed export takes no more messages")
        self._file.write(encode_frame(frame))
        if (message := self._messages.read(frame)) is not None:
            self._policies.take_records(message.body.records.values())
        self._count += 1
        self.written.entries = self._count

    def _store_policies(self) -> None:
        for path in map(policy_path, sorted(self._policies.named)):
            data = self._get(path)
            if data is None:
                self.written.missing_policies.append(path)
            else:
                self._store(path, data)
                self.written.policies += 1

    def _tile(self, name: TileName) -> bytes:
        """Return a tile for this size; if a partial tile is gone, the beginning of the full tile."""
        data = self._get(name.path)
        if data is None and name.width < TILE_WIDTH:
            data = self._get(name.full.path)
            data = data[: name.width * _ROWS.get(str(name.level), 32)] if data is not None else None
        if data is None:
            raise LogError(Code.BAD_TILE, f"{name.path} is missing")
        return data

    def _store(self, path: str, data: bytes) -> None:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
