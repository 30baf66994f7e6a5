"""Read the documents about work: tasks, dead letters, agents, schedules, policy and log, each when it is requested."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final, NamedTuple, cast

from sealbus.agents.console.decisions.deciding_policies import DecidingPolicies
from sealbus.agents.console.documents import (
    AgentsDocument,
    DeadDocument,
    LetterRow,
    LogAnswer,
    LoggedDocument,
    PolicyDocument,
    ScheduleDocument,
    SchedulesDocument,
    TasksDocument,
    VerifiedDocument,
)
from sealbus.agents.control.notary.keys import load_signers
from sealbus.agents.control.notary.role import NAME as NOTARY
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.evidence.export import export_log, log_files
from sealbus.agents.evidence.files import FolderFiles, LogPlace
from sealbus.agents.evidence.lookup import look_up
from sealbus.agents.evidence.receipt import make_receipt
from sealbus.agents.evidence.trust_root import make_root
from sealbus.agents.evidence.verify import verify_export
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import reading_profile
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.sdk.task_handle import handle_text
from sealbus.bus.cells import own_cell
from sealbus.bus.clocks import wall_clock
from sealbus.bus.inspection.agents import AgentSeen, actions_of, find_agents
from sealbus.bus.inspection.dead import DeadLetter, DeadLetterList
from sealbus.bus.inspection.documents import shown_time
from sealbus.bus.inspection.tasks import TaskFilter, TaskList
from sealbus.bus.nats.api import RECORDS, audit_stream
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import Transport
from sealbus.bus.work.schedules.book import Schedule, every_schedule
from sealbus.bus.work.schedules.rule import shown_when
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError
from sealbus.envelopes.export.format import CHECKPOINT
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.places import Place, parse_places
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName
from sealbus.envelopes.message.subjects import audit_subject
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.trust.spiffe_id import SpiffeId

WAITING_WITHIN: Final = 5.0
"""Seconds for finding the oldest record that waits for a checkpoint; after that it is not known."""

ENTRIES: Final = 200_000
"""Most entries of a log that is exported and verified for a page. They take some seconds, and some 200 MB of disk."""


class Views:
    """Builds documents for pages, reading as the console's own workload. Raises `SealbusError` as the readers do.

    It reads its own cell alone: it may read no other, and each has a console.
    """

    def __init__(self, settings: Settings, node: Node, connection: Connection, policies: DecidingPolicies) -> None:
        self._settings = settings
        self._node = node
        self._connection = connection
        self._policies = policies
        self._profile = reading_profile(settings, node.own)
        self._verifying = asyncio.Lock()

    @property
    def _transport(self) -> Transport:
        return own_cell(self._node.transport)

    async def tasks(self, agent: str, wanted: TaskFilter, most: int) -> TasksDocument:
        """Return the newest tasks for `agent`, or for all agents if it is empty."""
        node = self._node
        tasks = TaskList(
            transport=self._transport,
            profile=self._profile,
            trust=node.trust,
            past=node.past,
            restored=node.restored,
        )
        token = self._settings.names.token
        async with aclosing(tasks.listed(self._connection.jetstream, self._agent(agent), wanted, most=most)) as listed:
            documents = [task.document(name=token, handle=handle_text) async for task in listed]
        return {"tasks": documents, "unreadable": tasks.unreadable}

    async def dead(self, agent: str, most: int) -> DeadDocument:
        """Return the newest dead letters of `agent`, or of all agents if it is empty."""
        letters = DeadLetterList(transport=self._transport, profile=self._profile, trust=self._node.trust)
        async with aclosing(letters.listed(self._connection.jetstream, self._agent(agent), most=most)) as listed:
            return {"letters": [_letter(letter) async for letter in listed]}

    async def agents(self) -> AgentsDocument:
        """Return the agents, as a document."""
        return {"agents": [agent.document() for agent in await self.seen()]}

    async def seen(self) -> list[AgentSeen]:
        """Return the agents, from their consumers at the broker and the policy in force."""
        bundle = await self._policies.in_force()
        actions = actions_of(bundle.data if bundle is not None else None)
        own = self._node.deployment.own_subjects
        return await find_agents(self._connection.jetstream, actions, names=self._settings.names, own=own)

    async def schedules(self) -> SchedulesDocument:
        """Return all schedules."""
        now = self._node.clocks.now()
        schedules = await every_schedule(self._node.held_at(self._transport))
        return {
            "schedules": [_schedule(owner, schedule, now) for (owner, _), schedule in sorted(schedules.items())],
        }

    async def policy(self) -> PolicyDocument:
        """Return the parts of the policy, and the policy by which the engine here decides."""
        status = await self._node.engine.status()
        return {
            "engine": status.engine,
            "revision": status.revision,
            "problem": status.problem or self._node.policy_problem(),
            "parts": await self._policies.parts(),
        }

    async def log(self) -> LogAnswer:
        """Return the last checkpoint, if the log's folder is here, and how long a record has waited for the next."""
        folder = self._settings.control.notary.folder
        checkpoint = await asyncio.to_thread(self._checkpoint)
        if folder is None or checkpoint is None:
            return {"log": None}
        return {
            "log": {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "time": shown_time(checkpoint.changed),
                "age_s": max(0.0, (wall_clock() - checkpoint.changed) / SECOND),
                "waiting_s": await self._waiting(folder, checkpoint.size),
            }
        }

    async def _waiting(self, folder: Path, size: int) -> float | None:
        """Return the age in seconds of the oldest record that a checkpoint of `size` entries does not cover.

        0 without such a record, None if that is not known. Records of the notary about checkpoints do not count.
        """
        place, transport = LogPlace.of(self._settings, None), self._transport
        try:
            async with asyncio.timeout(WAITING_WITHIN):
                state = await audit_stream(self._connection.jetstream)
                covered = 0
                if state.name == place.stream and size:
                    last = await asyncio.to_thread(last_place, log_files(folder), size)
                    if last is None:
                        return None
                    covered = last.sequence
                if covered >= state.last:
                    return 0.0
                names = self._settings.names
                own = {audit_subject(names.token(notary)) for notary in (*self._settings.notaries, names.id_of(NOTARY))}
                source = transport.read(state.name, [RECORDS], start=covered + 1, headers_only=True)
                async with aclosing(source) as batches:
                    async for batch in batches:
                        for delivery in batch:
                            if delivery.subject not in own and delivery.arrival is not None:
                                return max(0.0, (wall_clock() - delivery.arrival.stored) / SECOND)
                return 0.0
        except (TimeoutError, BusUnavailable, ConfigurationError):
            return None

    @property
    def has_log(self) -> bool:
        """Whether the log can be read here."""
        table = self._settings.control.notary
        return table.folder is not None and table.origin is not None

    async def logged(self, sequence: int) -> LoggedDocument | None:
        """Return the entry of the log for the audit message `sequence`, and its checkpoint; None if it is not in a log here.

        This is what the log's files say, unproven. A receipt proves it.
        """
        folder = self._settings.control.notary.folder

        def look() -> LoggedDocument | None:
            checkpoint = self._checkpoint()
            if folder is None or checkpoint is None:
                return None
            entry = entry_of(log_files(folder), checkpoint.size, sequence)
            if entry is None:
                return None
            return {"entry": entry, "checkpoint": checkpoint.size, "time": shown_time(checkpoint.changed)}

        return await asyncio.to_thread(look)

    async def verify(self) -> VerifiedDocument:
        """Verify the whole log against the stream, as `sealbus audit verify --live` does. Runs one at a time."""
        started = perf_counter()
        async with self._exported() as (files, root):
            report = await asyncio.to_thread(lambda: verify_export(files, root, processes=1))
        return {
            "passed": report.passed,
            "findings": report.count,
            "size": report.checkpoint.size if report.checkpoint is not None else 0,
            "records": report.tally.records.total(),
            "seconds": round(perf_counter() - started, 2),
            "first": [
                {"sequence": finding.sequence, "code": str(finding.code), "detail": finding.detail}
                for finding in report.findings[:20]
            ],
        }

    async def receipt(self, record: bytes) -> bytes:
        """Return the receipt of the record with this hash, proved from the log. Raises `LogError`, `ConfigurationError`."""
        async with self._exported() as (files, root):
            return await asyncio.to_thread(_receipt, files, root, record)

    @asynccontextmanager
    async def _exported(self) -> AsyncGenerator[tuple[FolderFiles, Root], None]:
        """Export the log into a temporary folder. Runs one at a time."""
        table = self._settings.control.notary
        if table.folder is None or table.origin is None:
            raise ConfigurationError("the log is not here: set control.notary.folder, origin and keys")
        place = LogPlace.of(self._settings, None)
        if self._verifying.locked():
            raise EdgeError(Code.RATE_LIMITED, 429, "the log is being read for another request", retry_after=5)
        async with self._verifying:
            checkpoint = await asyncio.to_thread(self._checkpoint)
            if checkpoint is not None and checkpoint.size > ENTRIES:
                raise ConfigurationError(
                    f"the log has {checkpoint.size:,} entries: verify it with `sealbus audit verify --live`"
                )
            keys = [signer.verifier.text for signer in await asyncio.to_thread(load_signers, table.keys, table.origin)]
            root = await asyncio.to_thread(lambda: make_root(self._settings, keys=keys))
            with TemporaryDirectory(prefix="sealbus-console-") as folder:
                path = Path(folder) / "export"
                await export_log(
                    path,
                    get=log_files(place.folder),
                    transport=self._transport,
                    root=root,
                    stream=place.stream,
                    previous=place.previous,
                )
                yield FolderFiles(path), root

    def _checkpoint(self) -> _LastCheckpoint | None:
        """Return the newest checkpoint of the log; None if the log is not here, or has none."""
        table = self._settings.control.notary
        if table.folder is None or table.origin is None:
            return None
        file = table.folder / CHECKPOINT
        try:
            note, changed = file.read_bytes()[: DEFAULT_LIMITS.note_bytes], file.stat().st_mtime
        except FileNotFoundError:
            return None
        keys = tuple(signer.verifier for signer in load_signers(table.keys, table.origin))
        checkpoint = open_checkpoint(note, origin=table.origin, verifiers=keys).checkpoint
        return _LastCheckpoint(checkpoint.origin, checkpoint.size, checkpoint.root, int(changed * SECOND))

    def _agent(self, name: str) -> SpiffeId | None:
        return self._settings.names.id_of(name) if name else None


class _LastCheckpoint(NamedTuple):
    """The newest checkpoint in a folder, and when its file was written (microseconds)."""

    origin: str
    size: int
    root: bytes
    changed: int


def entry_of(get: Callable[[str], bytes | None], size: int, sequence: int) -> int | None:
    """Return the number of the entry for the message `sequence` among the first `size`, which are in the stream's order."""
    low, high = 0, (size - 1) // TILE_WIDTH
    while low < high:
        middle = (low + high) // 2
        rows = _places(get, size, middle)
        if not rows:
            return None
        low, high = (middle + 1, high) if rows[-1].sequence < sequence else (low, middle)
    for number, place in enumerate(_places(get, size, low) if size else ()):
        if place.sequence == sequence:
            return low * TILE_WIDTH + number
    return None


def last_place(get: Callable[[str], bytes | None], size: int) -> Place | None:
    """Return the place in the stream of the last of `size` entries of a log; None if its tile is missing."""
    rows = _places(get, size, (size - 1) // TILE_WIDTH)
    return rows[-1] if rows else None


def _places(get: Callable[[str], bytes | None], size: int, tile: int) -> tuple[Place, ...]:
    name = TileName("places", tile, min(TILE_WIDTH, size - tile * TILE_WIDTH))
    data = get(name.path) or get(name.full.path)
    return parse_places(data[: name.bytes], name.width) if data is not None else ()


def _receipt(files: FolderFiles, root: Root, record: bytes) -> bytes:
    lookup = look_up(files, root, record)
    if not lookup.found:
        raise ConfigurationError("the log does not hold this record yet: the notary has not reached it")
    return make_receipt(files, root, lookup, lookup.found[-1])


def _letter(letter: DeadLetter) -> LetterRow:
    """Return the row of a dead letter. If the letter is no message, the members of a message are empty."""
    document = letter.document()
    return cast("LetterRow", {name: document.get(name, "") for name in LetterRow.__annotations__})


def _schedule(owner: str, schedule: Schedule, now: int) -> ScheduleDocument:
    following = schedule.next(now) if schedule.stands(now) else None
    return {
        "owner": owner,
        "name": schedule.name,
        "action": schedule.planned.action,
        "user": parse_payload(schedule.user).sub if schedule.user else "",
        "rule": shown_when(schedule.planned.when),
        "next": shown_time(following) if following is not None else None,
        "until": shown_time(schedule.planned.until),
        "state": schedule.state.value if schedule.stands(now) or schedule.state.value == "removed" else "over",
        "asked_by": schedule.grant.by.value,
    }
