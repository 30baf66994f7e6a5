"""What the console shows of work: tasks, dead letters, agents, schedules, policy and log, each read when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final, NamedTuple

from sealbus.agents.console.deciding_policies import DecidingPolicies
from sealbus.agents.console.documents import (
    AgentDocument,
    AgentsDocument,
    DeadDocument,
    LetterDocument,
    LogAnswer,
    LoggedDocument,
    PolicyDocument,
    QueueDocument,
    ScheduleDocument,
    SchedulesDocument,
    TaskDocument,
    TasksDocument,
    VerifiedDocument,
)
from sealbus.agents.console.rows import shown_time
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
from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.bus.inspection.agents import AgentSeen, Queue, actions_of, agents_seen
from sealbus.bus.inspection.dead import DeadLetter, DeadLetterList, dead_subjects
from sealbus.bus.inspection.tasks import ListedTask, TaskFilter, TaskList, task_subjects
from sealbus.bus.nats.api import RECORDS, audit_stream, consumer_states, existing_stream
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.stream_names import DEAD, EVENTS, TASKS
from sealbus.bus.work.schedules.book import Schedule, every_schedule
from sealbus.bus.work.schedules.rule import shown_when
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError
from sealbus.envelopes.export.format import CHECKPOINT
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.log.checkpoint import open_strictly
from sealbus.envelopes.log.places import Place, parse_places
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName
from sealbus.envelopes.message.subjects import audit_subject
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["Views", "entry_of", "last_place"]

WAITING_WITHIN: Final = 5.0
"""Seconds for finding out what waits for a checkpoint; after that it is not known."""

ENTRIES: Final = 200_000
"""Most entries of a log that is exported and verified for a page: some seconds, and some 200 MB of disk for them."""


class Views:
    """Reads what the console shows, as the console's own workload. Raises `SealbusError` as the readers do."""

    def __init__(self, settings: Settings, node: Node, connection: Connection, policies: DecidingPolicies) -> None:
        self._settings = settings
        self._node = node
        self._connection = connection
        self._policies = policies
        self._profile = reading_profile(settings, node.own)
        self._verifying = asyncio.Lock()

    async def tasks(self, agent: str, wanted: TaskFilter, most: int) -> TasksDocument:
        """Return the newest tasks; those of `agent`, or all."""
        state = await existing_stream(self._connection.jetstream, TASKS)
        node = self._node
        tasks = TaskList(
            transport=node.transport, profile=self._profile, trust=node.trust, past=node.past, restored=node.restored
        )
        subjects = task_subjects(self._profile, self._agent(agent))
        found = tasks.newest(subjects, wanted, first=state.first, last=state.last, most=most)
        async with aclosing(found) as listed:
            rows = [self._task(one) async for one in listed]
        return {"tasks": rows, "unreadable": tasks.unreadable}

    async def dead(self, agent: str, most: int) -> DeadDocument:
        """Return the newest dead letters; those of `agent`, or all."""
        state = await existing_stream(self._connection.jetstream, DEAD)
        letters = DeadLetterList(transport=self._node.transport, profile=self._profile, trust=self._node.trust)
        subjects = dead_subjects(self._settings.names, self._agent(agent))
        found = letters.newest(subjects, first=state.first, last=state.last, most=most)
        async with aclosing(found) as listed:
            return {"letters": [_letter(one) async for one in listed]}

    async def agents(self) -> AgentsDocument:
        """Return who is there."""
        return {"agents": [_agent(one) for one in await self.seen()]}

    async def seen(self) -> list[AgentSeen]:
        """Return who is there, from their consumers at the broker and the policy at hand."""
        tasks = await consumer_states(self._connection.jetstream, TASKS)
        events = await consumer_states(self._connection.jetstream, EVENTS)
        bundle = await self._policies.in_force()
        actions = actions_of(bundle.data if bundle is not None else None)
        return agents_seen(tasks, events, actions, names=self._settings.names, own=self._node.deployment.own_subjects)

    async def schedules(self) -> SchedulesDocument:
        """Return all schedules."""
        now = self._node.clocks.now()
        found = await every_schedule(self._node.held)
        return {
            "schedules": [_schedule(owner, one, now) for (owner, _), one in sorted(found.items())],
        }

    async def policy(self) -> PolicyDocument:
        """Return the parts of the policy, and what the engine here decides by."""
        status = await self._node.engine.status()
        return {
            "engine": status.engine,
            "revision": status.revision,
            "problem": status.problem or self._node.policy_problem(),
            "parts": [
                {
                    "part": one.part,
                    "serial": one.serial,
                    "revision": one.revision,
                    "key": one.key,
                    "kept": one.kept,
                    "problem": one.problem,
                }
                for one in await self._policies.parts()
            ],
        }

    async def log(self) -> LogAnswer:
        """Return the last checkpoint of the log, if its folder is here, and for how long a record has waited for the next."""
        table = self._settings.control.notary
        if table.folder is None or table.origin is None:
            return {"log": None}
        found = await asyncio.to_thread(self._checkpoint, table.folder, table.origin)
        if found is None:
            return {"log": None}
        return {
            "log": {
                "origin": found.origin,
                "size": found.size,
                "root": found.root.hex(),
                "time": shown_time(found.changed),
                "age_s": max(0.0, (wall_clock() - found.changed) / SECOND),
                "waiting_s": await self._waiting(table.folder, found.size),
            }
        }

    async def _waiting(self, folder: Path, size: int) -> float | None:
        """Return for how many seconds the oldest record has been stored that a checkpoint of `size` entries does not cover.

        0 if there is none, None if that is not known. What the notary itself stores about a checkpoint waits for nothing.
        """
        place, transport = LogPlace.of(self._settings, None), self._node.transport
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
                own = {audit_subject(names.token(one)) for one in (*self._settings.notaries, names.id_of(NOTARY))}
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
        """Return which entry of the log the message `sequence` is, under which checkpoint; None if it is in none here.

        The log's own word for it, which a receipt proves.
        """
        table = self._settings.control.notary
        if table.folder is None or table.origin is None:
            return None
        folder, origin = table.folder, table.origin

        def look() -> LoggedDocument | None:
            found = self._checkpoint(folder, origin)
            if found is None:
                return None
            entry = entry_of(log_files(folder), found.size, sequence)
            if entry is None:
                return None
            return {"entry": entry, "checkpoint": found.size, "time": shown_time(found.changed)}

        return await asyncio.to_thread(look)

    async def verify(self) -> VerifiedDocument:
        """Verify the whole log against the stream, as `sealbus audit verify --live` does; one at a time."""
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
                {"sequence": one.sequence, "code": str(one.code), "detail": one.detail} for one in report.findings[:20]
            ],
        }

    async def receipt(self, record: bytes) -> bytes:
        """Return the receipt of the record with this hash, proved from the log. Raises `LogError`, `ConfigurationError`."""
        async with self._exported() as (files, root):
            return await asyncio.to_thread(_receipt, files, root, record)

    @asynccontextmanager
    async def _exported(self) -> AsyncGenerator[tuple[FolderFiles, Root], None]:
        """Export the log as it is now into a folder for a moment; one at a time."""
        table = self._settings.control.notary
        if table.folder is None or table.origin is None:
            raise ConfigurationError("the log is not here: set control.notary.folder, origin and keys")
        place, origin = LogPlace.of(self._settings, None), table.origin
        if self._verifying.locked():
            raise EdgeError(Code.RATE_LIMITED, 429, "the log is being read for somebody else", retry_after=5)
        async with self._verifying:
            found = await asyncio.to_thread(self._checkpoint, place.folder, origin)
            if found is not None and found.size > ENTRIES:
                raise ConfigurationError(
                    f"the log has {found.size:,} entries: verify it with `sealbus audit verify --live`"
                )
            keys = [one.verifier.text for one in await asyncio.to_thread(load_signers, table.keys, origin)]
            root = await asyncio.to_thread(lambda: make_root(self._settings, keys=keys))
            with TemporaryDirectory(prefix="sealbus-console-") as folder:
                path = Path(folder) / "export"
                await export_log(
                    path,
                    get=log_files(place.folder),
                    transport=self._node.transport,
                    root=root,
                    stream=place.stream,
                    previous=place.previous,
                )
                yield FolderFiles(path), root

    def _checkpoint(self, folder: Path, origin: str) -> _LastCheckpoint | None:
        file = folder / CHECKPOINT
        try:
            note, changed = file.read_bytes()[: DEFAULT_LIMITS.published_note_bytes], file.stat().st_mtime
        except FileNotFoundError:
            return None
        keys = tuple(one.verifier for one in load_signers(self._settings.control.notary.keys, origin))
        checkpoint = open_strictly(note, origin, keys).checkpoint
        return _LastCheckpoint(checkpoint.origin, checkpoint.size, checkpoint.root, int(changed * SECOND))

    def _agent(self, name: str) -> SpiffeId | None:
        return self._settings.names.id_of(name) if name else None

    def _task(self, task: ListedTask) -> TaskDocument:
        header, told = task.header, task.told
        handle = ""
        if not task.refused and task.action:
            handle = handle_text(AskedTask(pending=PendingRequest.of(header), action=task.action))
        return {
            "message": header.id.hex(),
            "hash": header.digest.hex(),
            "handle": handle,
            "subject": header.to,
            "action": task.action,
            "agent": self._settings.names.token(header.aud) if header.aud is not None else "",
            "from": self._settings.names.token(header.iss),
            "user": task.user,
            "root": header.par is None,
            "verified": not task.refused,
            "refused": task.refused,
            "time": shown_time(task.stored),
            "until": shown_time(header.exp),
            "sequence": task.sequence,
            "state": told.state,
            "code": told.code,
            "reasons": list(told.reasons),
            "note": told.note,
            "by": told.by,
            "unverified_statuses": list(told.unverified),
        }


class _LastCheckpoint(NamedTuple):
    """The newest checkpoint in a folder, and when its file was written (microseconds)."""

    origin: str
    size: int
    root: bytes
    changed: int


def entry_of(get: Callable[[str], bytes | None], size: int, sequence: int) -> int | None:
    """Return the number of the entry for the message `sequence` among `size` of a log, which are in the stream's order."""
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
    """Return the place in the stream of the last of `size` entries of a log; None if that is not there."""
    rows = _places(get, size, (size - 1) // TILE_WIDTH)
    return rows[-1] if rows else None


def _places(get: Callable[[str], bytes | None], size: int, tile: int) -> tuple[Place, ...]:
    name = TileName("places", tile, min(TILE_WIDTH, size - tile * TILE_WIDTH))
    data = get(name.path) or get(name.full.path)
    return parse_places(data[: name.bytes], name.width) if data is not None else ()


def _receipt(files: FolderFiles, root: Root, record: bytes) -> bytes:
    lookup = look_up(files, root, record)
    if not lookup.found:
        raise ConfigurationError("the log does not hold this record yet: the notary has not come so far")
    return make_receipt(files, root, lookup, lookup.found[-1])


def _letter(letter: DeadLetter) -> LetterDocument:
    header, death = letter.header, letter.death
    return {
        "sequence": letter.sequence,
        "time": shown_time(letter.stored),
        "subject": letter.subject,
        "agent": letter.agent,
        "message": header.id.hex() if header is not None else "",
        "from": header.iss.value if header is not None else "",
        "user": letter.user,
        "code": death.code if death is not None else "",
        "detail": death.detail if death is not None else "",
        "deliveries": death.deliveries if death is not None else 0,
        "refused": letter.refused,
    }


def _agent(one: AgentSeen) -> AgentDocument:
    return {
        "name": one.token,
        "state": one.state,
        "processes": one.processes,
        "tasks": _queue(one.tasks),
        "events": _queue(one.events),
        "listens": list(one.listens),
        "actions": list(one.actions),
    }


def _queue(queue: Queue | None) -> QueueDocument | None:
    if queue is None:
        return None
    return {
        "waiting": queue.waiting,
        "in_hand": queue.in_hand,
        "redelivered": queue.redelivered,
        "active": shown_time(queue.active) if queue.active else None,
        "full": queue.full,
    }


def _schedule(owner: str, one: Schedule, now: int) -> ScheduleDocument:
    following = one.next(now) if one.stands(now) else None
    return {
        "owner": owner,
        "name": one.name,
        "action": one.planned.action,
        "user": parse_payload(one.user).sub if one.user else "",
        "rule": shown_when(one.planned.when),
        "next": shown_time(following) if following is not None else None,
        "until": shown_time(one.planned.until),
        "state": one.state.value if one.stands(now) or one.state.value == "removed" else "over",
        "asked_by": one.grant.by.value,
    }
