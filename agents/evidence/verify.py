"""Verifies an export: every file, every byte, every record, on all cores, in memory that does not grow with it.

The first, light pass reads what must be read in order: changes of trust, and the order of entries. Then separate processes
verify tiles in any order, and their results are combined in order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Final, NamedTuple

from sealbus.agents.evidence.approvals import ApprovalChains
from sealbus.agents.evidence.files import ExportFiles, frames_of
from sealbus.agents.evidence.standing import StandingChains
from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError, LogError
from sealbus.envelopes.export.approvals import ApprovalFact, ApprovalUsed
from sealbus.envelopes.export.entries import EntryReader, OrderReader, ShownRestoration
from sealbus.envelopes.export.finding import Finding, FindingCode, of_file, of_sequence
from sealbus.envelopes.export.format import CHECKPOINT, entry_of, is_expected, messages_path, tiles_of
from sealbus.envelopes.export.latest import LATEST, LATEST_BYTES, check_latest
from sealbus.envelopes.export.policy_files import policy_digest
from sealbus.envelopes.export.standing import GrantFact, GrantUsed
from sealbus.envelopes.export.tally import RepeatedRecords, Span, Tally
from sealbus.envelopes.export.tiles import TileResult, TileTask, TreeReader, read_tile, tasks_of
from sealbus.envelopes.export.trust import ArchivedBundle, TrustArchive, TrustReader
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName
from sealbus.envelopes.trust.bundles import JwtBundle
from sealbus.envelopes.trust.spiffe_id import TrustDomain

KEPT_FINDINGS: Final = 10_000
"""Findings kept with their texts; further ones are counted."""
_OPENING: Final = 65_536
"""Most messages of kind 0x00 that open, for which a copy of kind 0x01 is looked for; further ones are findings."""
_AHEAD: Final = 4
"""Tiles waiting or being verified, for each process."""

Progress = Callable[[int, int], None]
"""Called with the number of tiles done, and of all, in both passes."""

_HASH_ROW = 32
_ENTRY_ROW = 34

_readers: list[SegmentReader] = []
"""The reader of a worker process, which reads one export all its life."""


@dataclass(slots=True)
class ShownElsewhere:
    """What a log shows on which decisions in other logs may rest, in its order: denials, verdicts, and users' grants."""

    approvals: list[ApprovalFact] = field(default_factory=list)
    grants: list[GrantFact] = field(default_factory=list)

    def take(self, result: TileResult) -> None:
        """Add what the next tile shows."""
        self.approvals += [fact for fact in result.approvals if not isinstance(fact, ApprovalUsed)]
        self.grants += [fact for fact in result.grants if not isinstance(fact, GrantUsed)]

    def add(self, other: ShownElsewhere) -> None:
        """Add what another log shows."""
        self.approvals += other.approvals
        self.grants += other.grants


NOTHING_ELSEWHERE: Final = ShownElsewhere()


@dataclass(slots=True)
class Verification:
    """The result of a verification: `count` findings, of which the first are kept."""

    checkpoint: Checkpoint | None = None
    cosigners: tuple[str, ...] = ()
    """The witnesses that have cosigned the checkpoint, by their names in the root's policy."""
    following: int = 0
    """The entries that follow in the log's latest checkpoint, which has no quorum, as far as the export says."""
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    tally: Tally = field(default_factory=Tally)
    trust: TrustArchive = field(default_factory=TrustArchive, repr=False, compare=False)
    """The trust bundles that the log leads to; a message is opened again with these."""
    policies: frozenset[bytes] = frozenset()
    """The hashes of the policy bundles that the log names."""
    restorations: tuple[ShownRestoration, ...] = ()
    """The restorations of the stream, in their order."""
    repeated: Mapping[int, frozenset[bytes]] = field(default_factory=dict, repr=False, compare=False)
    """By tile, the names of records that an earlier tile also holds, so that they do not count again."""
    shown: ShownElsewhere = field(default_factory=ShownElsewhere, repr=False, compare=False)
    unchecked: ShownElsewhere = field(default_factory=ShownElsewhere, repr=False, compare=False)
    """All facts of approvals and grants, if `verify_together` is to check them."""

    @property
    def passed(self) -> bool:
        """Whether there is a checkpoint, and no finding at all."""
        return self.checkpoint is not None and self.count == 0

    def add_findings(self, findings: Iterable[Finding]) -> None:
        """Add findings."""
        for finding in findings:
            self.count += 1
            if len(self.findings) < KEPT_FINDINGS:
                self.findings.append(finding)


def verify_export(
    files: ExportFiles,
    root: Root,
    *,
    beside: ShownElsewhere | None = NOTHING_ELSEWHERE,
    processes: int | None = None,
    span: Span | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Verification:
    """Verify the export `files` against `root`, which must come from another source; return the result.

    `beside` is what other logs have `shown` that were verified: those of other cells. With None the decisions that rest on
    approvals and grants are not checked: `verify_together` does it.

    Faulty contents of files are findings and raise no error. A file that cannot be read, or a process that the system kills,
    raises `ConfigurationError`. `processes` is by default the number of cores. `span` limits what is counted by row.
    """
    report = Verification()
    checkpoint = _open_checkpoint(files, root, report)
    if checkpoint is None:
        return report
    total = tiles_of(checkpoint.size)
    present: set[bytes] = set()
    expected = _check_latest(files, checkpoint, root, report)
    if not _check_files(files, checkpoint.size, expected, present, report):
        return report
    trust, report.restorations = _first_pass(files, root, checkpoint.size, report, progress)
    report.trust, report.policies = trust.archive, frozenset(trust.policies.named)
    report.add_findings(trust.policies.check(files.read, present))
    sizes = [
        checkpoint.size,
        *(signed.checkpoint.size for signed in root.held if signed.checkpoint.size <= checkpoint.size),
        *(logged.size for logged in trust.checkpoints),
    ]
    tree = TreeReader(lambda name: tile_bytes(files, name), sizes)
    segment = Segment.of(files, root, trust.archive, span if span is not None else Span())
    repeated, opening = RepeatedRecords(), dict[int, bytes]()
    chains = _Chains(beside) if beside is not None else None
    for result in _read_tiles(segment, tasks_of(checkpoint.size, sizes), total, processes):
        tree.take_tile(result)
        report.add_findings(result.findings)
        report.tally.add(result.tally)
        repeated.take_names(result.task.index, result.names)
        report.shown.take(result)
        if chains is not None:
            report.add_findings(chains.take_facts(result.approvals, result.grants))
        else:
            report.unchecked.approvals += result.approvals
            report.unchecked.grants += result.grants
        for sequence, digest in result.opening:
            if len(opening) < _OPENING:
                opening[sequence] = digest
            else:
                report.add_findings([_opens(sequence)])
        progress(total + result.task.index + 1, 2 * total)
    tree.end()
    _count_once(segment, checkpoint.size, repeated, report)
    if opening:
        copied = _verified(files, checkpoint.size, {*opening.values()})
        report.add_findings(_opens(sequence) for sequence, digest in opening.items() if digest not in copied)
    report.add_findings(tree.findings)
    _compare_roots(tree, checkpoint, root, trust, report)
    return report


def verify_together(reports: Sequence[Verification]) -> None:
    """Add the findings about approvals and grants, which each log of a set may show for the others.

    Each report is that of another log, by `verify_export` with None for `beside`. To each log, those of the others come
    first, in the order of `reports`.
    """
    for report in reports:
        beside = ShownElsewhere()
        for other in reports:
            if other is not report:
                beside.add(other.shown)
        report.add_findings(_Chains(beside).take_facts(report.unchecked.approvals, report.unchecked.grants))


class _Chains:
    """Checks what decisions rest on, in the order of the log."""

    def __init__(self, beside: ShownElsewhere) -> None:
        self._approvals, self._grants = ApprovalChains(beside.approvals), StandingChains(beside.grants)

    def take_facts(self, approvals: Iterable[ApprovalFact], grants: Iterable[GrantFact]) -> Iterator[Finding]:
        """Take the next facts; yield a finding for each decision that does not rest on what it claims."""
        yield from self._approvals.take_facts(approvals)
        yield from self._grants.take_facts(grants)


def _open_checkpoint(files: ExportFiles, root: Root, report: Verification) -> Checkpoint | None:
    note = files.read(CHECKPOINT, root.note_bytes)
    if note is None:
        report.add_findings([of_file(CHECKPOINT, FindingCode.MISSING_FILE)])
        return None
    try:
        # Of a file that is longer than any note, one byte too many was read.
        signed = root.open_checkpoint(note)
        report.checkpoint, report.cosigners = signed.checkpoint, signed.cosigners
    except LogError as error:
        report.add_findings([of_file(CHECKPOINT, error.code, error.detail)])
    return report.checkpoint


def _check_latest(files: ExportFiles, checkpoint: Checkpoint, root: Root, report: Verification) -> frozenset[str]:
    """Verify the later checkpoint, if the export has one; return the names of files that only this root allows."""
    if root.policy is None:
        return frozenset()
    data = files.read(LATEST, LATEST_BYTES)
    if data is not None:
        try:
            report.following = check_latest(data, checkpoint, root).size - checkpoint.size
        except LogError as error:
            report.add_findings([of_file(LATEST, error.code, error.detail)])
    return frozenset({LATEST})


def _check_files(
    files: ExportFiles, size: int, expected: frozenset[str], policies: set[bytes], report: Verification
) -> bool:
    """Look for unknown and missing files; return False if fewer files are there than the log has tiles.

    Beside the files of its size, an export may have the files `expected`. Policy bundles are added to `policies`: the first
    pass finds which of them the log covers.
    """
    present = 0
    for path in files.paths():
        present += 1
        if (digest := policy_digest(path)) is not None:
            policies.add(digest)
        elif path not in expected and not is_expected(path, size):
            report.add_findings([of_file(path, FindingCode.UNKNOWN_FILE, "nothing covers it")])
    if tiles_of(size) > present:
        # Not even the messages are there. Verification stops, so that a claim of 2^53 entries costs no time.
        report.add_findings([of_file("messages", FindingCode.MISSING_FILE, "fewer files than the checkpoint says")])
        return False
    level = 0
    while held := size >> (8 * level):
        for task in tasks_of(held, ()):
            names = [messages_path(task.index), task.entries.path, task.hashes.path] if level == 0 else []
            names = names or [task.hashes.path.replace("tile/0/", f"tile/{level}/", 1)]
            report.add_findings(of_file(name, FindingCode.MISSING_FILE) for name in names if not _is_there(files, name))
        level += 1
    return True


def _is_there(files: ExportFiles, path: str) -> bool:
    opened = files.open(path)
    if opened is None:
        return False
    with opened:
        return True


def _first_pass(
    files: ExportFiles, root: Root, size: int, report: Verification, progress: Progress
) -> tuple[TrustReader, tuple[ShownRestoration, ...]]:
    """Read the entries and the records of the notary, whose order matters."""
    trust, order, total = TrustReader(root), OrderReader(), tiles_of(size)
    for task in tasks_of(size, ()):
        index = start = task.index * 256
        try:
            for frame in frames_of(files, task.index):
                if index == start + task.width:
                    break
                order.take_frame(frame, index)
                trust.take_frame(frame, index)
                index += 1
        except LogError:
            # The second pass reports it.
            order.lose()
        if index < start + task.width:
            order.lose()
        report.add_findings(order.findings)
        report.add_findings(trust.findings)
        order.findings.clear()
        trust.findings.clear()
        progress(task.index + 1, 2 * total)
    order.end()
    trust.end()
    report.add_findings(order.findings)
    report.add_findings(trust.findings)
    return trust, tuple(order.restorations)


def _count_once(segment: Segment, size: int, repeated: RepeatedRecords, report: Verification) -> None:
    """Subtract the counts of records that an earlier tile also holds."""
    report.repeated = repeated.repeated_by_tile()
    reader = SegmentReader(segment)
    for index, names in report.repeated.items():
        task = TileTask(index, min(TILE_WIDTH, size - index * TILE_WIDTH), only=names)
        report.tally.remove(reader.read(task).tally)


def _verified(files: ExportFiles, size: int, digests: set[bytes]) -> set[bytes]:
    """Return those of `digests` that are H(header) of a message of kind 0x01."""
    verified: set[bytes] = set()
    for task in tasks_of(size, ()):
        try:
            for frame in frames_of(files, task.index):
                if frame.kind is EntryKind.VERIFIED:
                    verified.add(entry_of(frame).digest)
        except (EnvelopeError, LogError):
            # Already a finding.
            continue
        verified &= digests
    return verified


def _opens(sequence: int) -> Finding:
    detail = "logged as unverified, but it opens with the bundles of its time"
    return of_sequence(sequence, LogError(Code.BAD_ENTRY, detail))


def _read_tiles(segment: Segment, tasks: Iterable[TileTask], total: int, processes: int | None) -> Iterator[TileResult]:
    """Yield the results of `tasks` in order, from as many processes as there is work for."""
    workers = min(processes or os.cpu_count() or 1, total)
    if workers < 2:
        reader = SegmentReader(segment)
        for task in tasks:
            yield reader.read(task)
        return
    # Spawned, because a fork of a process with threads may hang, and a progress bar starts a thread.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), begin_worker, (segment,))
    try:
        waiting: deque[Future[TileResult]] = deque()
        for task in tasks:
            waiting.append(pool.submit(read_in_worker, task))
            if len(waiting) >= workers * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ConfigurationError("a verifying process was killed: if memory was short, use fewer") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _compare_roots(
    tree: TreeReader, checkpoint: Checkpoint, root: Root, trust: TrustReader, report: Verification
) -> None:
    if tree.root_at(checkpoint.size) != checkpoint.root:
        report.add_findings([of_file(CHECKPOINT, Code.LOG_MISMATCH, "the messages lead to another root")])
    for held in root.held:
        if held.checkpoint.size > checkpoint.size:
            report.add_findings([of_file(CHECKPOINT, FindingCode.ROLLED_BACK, "a later checkpoint is held elsewhere")])
        elif tree.root_at(held.checkpoint.size) != held.checkpoint.root:
            report.add_findings([of_file(CHECKPOINT, Code.INCONSISTENT_LOG, "another checkpoint is held elsewhere")])
    for logged in trust.checkpoints:
        if tree.root_at(logged.size) != logged.root:
            error = LogError(Code.INCONSISTENT_LOG, "a checkpoint in the log is of another log")
            report.add_findings([of_sequence(logged.sequence, error)])


class Segment(NamedTuple):
    """The values that a process needs to read any tile of one export; they can be pickled."""

    files: ExportFiles
    root: bytes
    """The root file."""
    bundles: tuple[tuple[int, str, bytes], ...]
    """The trust archive: start time, trust domain, JWK set."""
    span: Span

    @classmethod
    def of(cls, files: ExportFiles, root: Root, archive: TrustArchive, span: Span) -> Segment:
        """Return the values for processes."""
        bundles = tuple((since, bundle.trust_domain.name, bundle.jwks) for since, bundle in archive)
        return cls(files, root.encode(), bundles, span)


@dataclass(slots=True)
class SegmentReader:
    """A reader of one export's tiles, which remembers verified credentials from tile to tile."""

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
        return read_tile(task, frames_of(files, task.index), self._reader, hashes=hashes, entries=entries)


def tile_bytes(files: ExportFiles, name: TileName) -> bytes | None:
    """Return the file of a tile, at most one byte too many; None if it is missing."""
    return files.read(name.path, name.width * (_ENTRY_ROW if name.level == "entries" else _HASH_ROW))


def begin_worker(segment: Segment) -> None:
    """Prepare this worker process to read tiles."""
    _readers[:] = [SegmentReader(segment)]


def read_in_worker(task: TileTask) -> TileResult:
    """Verify one tile in a worker process."""
    return _readers[0].read(task)
