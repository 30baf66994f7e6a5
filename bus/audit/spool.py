"""The local audit spool: a record counts as recorded once it is on this machine's disk, and reaches the stream later.

It is for operators who prefer availability (`audit.spool`). Delivered work is handled while NATS is unavailable, and no
handler waits for an acknowledgement. Spooled records survive the process and the operating system but not the machine:
losing the disk loses records of handled messages. Decisions on core calls are never spooled, because the stream must know
their guard id before the call is handled (SPEC.md section 7, step 6).

::

    store --commit, many under one fdatasync--> files --in order, sealed when they leave--> audit stream --PubAck--> dropped
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from sealbus.bus.audit.spool_files import SEGMENT_BYTES, Frame, SpoolFiles
from sealbus.bus.background import Background
from sealbus.bus.sending.message import record_message
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import AuditUnavailable, SealbusError
from sealbus.envelopes.records.batch import ClosedBatch

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_TOGETHER: Final = 32
"""Audit messages that are sent together; the next follow when all of them are acknowledged."""
_TOGETHER_BYTES: Final = 2 * 1_048_576
_BACKOFF: Final = Backoff(initial_interval=0.1, backoff_coefficient=5.0, maximum_interval=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions:
    """Where records are spooled, and how many bytes. A process that ends waits `drain` seconds for the stream."""

    folder: Path
    max_bytes: int = 268_435_456
    segment_bytes: int = SEGMENT_BYTES
    within: float = 10.0
    drain: float = 5.0


class Spool:
    """The spool of one identity, whose records go to `subject`; enter it with `async with`.

    Entering raises `ConfigurationError` as `SpoolFiles.open` does. Leaving waits up to `drain` seconds for the stream;
    records that the stream did not take stay in the folder for the next process.
    """

    def __init__(self, options: SpoolOptions, *, subject: str, outbox: Outbox, counters: Counters) -> None:
        self._options = options
        self._subject = subject
        self._outbox = outbox
        self._counters = counters
        # Two threads of its own: reads for the stream wait neither for a write nor for other work of the process.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="audit-spool")
        self._files: SpoolFiles | None = None
        self._pending: list[tuple[ClosedBatch, asyncio.Future[None]]] = []
        self._due = asyncio.Event()
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._group = Background()
        self._tasks: list[asyncio.Task[None]] = []
        self._refusing = False
        self._stuck = False

    async def __aenter__(self) -> Self:
        options = self._options
        files = await self._in_thread(
            lambda: SpoolFiles.open(options.folder, max_bytes=options.max_bytes, segment_bytes=options.segment_bytes)
        )
        self._files = files
        if files.torn:
            _logger.warning("audit spool: cut off %d bytes that were being written when a process ended", files.torn)
        if files.frames:
            _logger.warning("audit spool: %d audit messages of an earlier process are sent now", files.frames)
            self._filled.set()
        else:
            self._empty.set()
        self._counters.gauge("sealbus_audit_spool_messages", lambda: files.frames)
        self._counters.gauge("sealbus_audit_spool_bytes", lambda: files.bytes)
        await self._group.__aenter__()
        self._tasks = [
            self._group.create_task(self._commit(), name="audit-spool-commit"),
            self._group.create_task(self._flush(), name="audit-spool-flush"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.drain):
                        await self._empty.wait()
            for task in self._tasks:
                task.cancel()
            await self._group.__aexit__(kind, error, trace)
        finally:
            files = self._open()
            # Waits for a thread that is still writing.
            await asyncio.shield(self._in_thread(files.close))
            self._threads.shutdown(wait=False)
            if files.frames:
                _logger.warning("audit spool: %d audit messages stay for the next process", files.frames)

    @property
    def problem(self) -> str:
        """The code with which all handling fails once the disk has failed; empty until then."""
        return str(AuditUnavailable.code) if self._open().broken else ""

    @property
    def behind(self) -> str:
        """A note for operators while records are spooled but the stream does not take them; otherwise empty."""
        if not self._stuck:
            return ""
        files = self._open()
        return f"{files.frames} audit messages ({files.bytes} bytes) wait on disk: the stream does not take them"

    async def store(self, closed: ClosedBatch) -> None:
        """Store `closed` durably on disk. Raises `AuditUnavailable` if there is no room, or the disk failed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((closed, future))
        self._empty.clear()
        self._due.set()
        await future

    async def _commit(self) -> None:
        """Write all waiting batches together, until cancelled."""
        files = self._open()
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                waiting, self._pending = self._pending, []
                await self._write(files, waiting)
        finally:
            for _, future in self._pending:
                _refuse(future, AuditUnavailable("the audit spool is closed"))

    async def _write(self, files: SpoolFiles, waiting: Sequence[tuple[ClosedBatch, asyncio.Future[None]]]) -> None:
        try:
            await self._in_thread(partial(files.append, [closed for closed, _ in waiting]))
        except AuditUnavailable as error:
            if len(waiting) > 1:
                # There may be room for some of the batches: try them in order.
                for entry in waiting:
                    await self._write(files, [entry])
                return
            if not self._refusing:
                _logger.error(  # noqa: TRY400 - the error says all
                    "audit spool: %s; nothing is handled until this is resolved", error.detail
                )
            self._refusing = True
            _refuse(waiting[0][1], error)
            self._settle(files)
            return
        except BaseException:
            for _, future in waiting:
                _refuse(future, AuditUnavailable("the audit spool is closed"))
            raise
        self._refusing = False
        self._empty.clear()
        self._counters.add("sealbus_audit_spooled_total", len(waiting))
        self._filled.set()
        for _, future in waiting:
            if not future.done():
                future.set_result(None)

    async def _flush(self) -> None:
        """Send the batches on disk, oldest first, until cancelled."""
        files = self._open()
        failed = 0
        while True:
            await self._filled.wait()
            self._filled.clear()
            while True:
                try:
                    frames = await self._in_thread(partial(files.peek, _TOGETHER, _TOGETHER_BYTES))
                except AuditUnavailable as error:
                    _logger.critical("audit spool: %s", error.detail)
                    return
                if not frames:
                    break
                failed = await self._send(frames, failed)
                await self._in_thread(partial(files.drop, frames))
            self._settle(files)

    async def _send(self, frames: Sequence[Frame], failed: int) -> int:
        """Send `frames`, repeating until the stream has acknowledged all of them."""
        left = list(frames)
        while True:
            messages = [record_message(self._subject, frame.closed) for frame in left]
            answers = await self._outbox.publish_each(messages, within=self._options.within)
            stored = [isinstance(answer, Posted) for answer in answers]
            self._counters.add("sealbus_audit_messages_total", sum(stored))
            left = [frame for frame, done in zip(left, stored, strict=True) if not done]
            if not left:
                if self._stuck:
                    _logger.warning("audit spool: the stream takes records again")
                self._stuck = False
                return 0
            if not self._stuck:
                refused = next(answer for answer in answers if isinstance(answer, SealbusError))
                _logger.warning("audit spool: records stay on disk, the stream does not take them: %s", refused.code)
            self._stuck = True
            failed += 1
            await asyncio.sleep(_BACKOFF.interval(failed))

    def _settle(self, files: SpoolFiles) -> None:
        if not files.frames and not self._pending:
            self._empty.set()

    def _open(self) -> SpoolFiles:
        if self._files is None:
            raise RuntimeError("the audit spool is not entered")
        return self._files

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _refuse(future: asyncio.Future[None], error: AuditUnavailable) -> None:
    if not future.done():
        future.set_exception(error)
