"""A site of a simulation: its brokers, its hosts, their clocks, and the history of what happened."""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from functools import partial
from hashlib import sha256
from typing import Any, Final
from unittest.mock import patch

from promises.history import Event, What
from promises.promises import CRASHED, Promises
from starlette.types import ASGIApp

from sealbus.agents.control.notary import lease
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.memory.jetstream import Stored, Stream
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.health import Readiness
from sealbus.agents.runtime.node import Deployment, Feeds, Node
from sealbus.agents.runtime.node import Host as NodeHost
from sealbus.bus import loop_turns
from sealbus.bus.cells import DEFAULT, Cells, CellTransport, placed_by
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.ports import Outgoing, Transport
from sealbus.bus.stream_names import TASKS
from sealbus.bus.work.ack_floors import FLOOR, floor_key
from sealbus.bus.work.cancel import in_force, room
from sealbus.bus.work.executor.attempt_counts import FAILED
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.records.record import Record
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.decision.placement import Placement
from simulation.broker import SimulatedBroker, Unanswered
from simulation.cells import CELLS, EAST, LOGS
from simulation.loop import CURRENT, Host, SimulatedLoop
from simulation.network import Link, SimulatedTransport
from simulation.plan import CONSUMERS, HEARD_SECONDS, MOVE_SECONDS

__all__ = ["START", "Site"]

ROOM_FOR_STOPS: Final = 16
"""Stops of one agent for one requester."""
START: Final = 1_900_000_000
"""Unix time at which each simulation begins."""
NO_FEEDS: Final = Feeds()


class Site:
    """One site, whose processes are started and killed by name. The agents `east` are in a cell of their own."""

    def __init__(
        self,
        seed: int,
        *,
        engine: Callable[[], PolicyEngine],
        promises: Promises,
        replicas: int = 3,
        east: Collection[str] = (),
    ) -> None:
        self.loop = SimulatedLoop(seed)  # type: ignore[abstract]  # sockets and processes are not simulated
        self.random = random.Random(f"site {seed}")  # noqa: S311  a schedule, no secret
        self.brokers = {
            cell: SimulatedBroker(self.loop, start=START * SECOND, replicas=replicas)
            for cell in (CELLS if east else (DEFAULT,))
        }
        """The broker of each cell, with streams of its own."""
        for cell, broker in self.brokers.items():
            broker.on_stored = partial(self._note_stored, cell)
        self.names = Names(TrustDomain("example.org"))
        self.authority = DevelopmentAuthority(self.names.trust_domain, clock=self.brokers[DEFAULT].clock)
        self.cells: Mapping[str, Placement] = {
            self.names.token(self.names.id_of(name)): Placement(EAST) for name in (*east, LOGS[EAST].notary) if east
        }
        """Where each token is that is not in the default cell, as the registry has it now."""
        self._cells_before: Mapping[str, Placement] = self.cells
        self._moved_at = -math.inf
        self.deployment = Deployment(
            names=self.names,
            minters=frozenset({self.names.id_of("shop"), self.names.id_of("edge")}),
            notaries=frozenset({self.names.id_of(LOGS[cell].notary) for cell in self.brokers}),
            development=True,
        )
        self.links: dict[str, Link] = {}
        self.listening: dict[str, ASGIApp] = {}
        """The applications that hosts serve over HTTP, by host."""
        self.history: list[Event] = []
        self.notes: dict[str, list[bytes]] = {cell: [] for cell in self.brokers}
        """The checkpoints that were published in each cell."""
        self.failed: Counter[str] = Counter()
        """How many attempts at each message have failed as planned."""
        self.recorded = dict.fromkeys(self.brokers, 0)
        """For each cell the last sequence of AUDIT with more than checkpoints, which a checkpoint has to follow."""
        self.allowed: dict[str, set[str]] = {cell: set() for cell in self.brokers}
        """The messages that the stored records of each cell allow."""
        self.first_bundle: dict[str, bytes] = {}
        """The hash of the first bundle of keys that a notary of each cell has published, which an auditor trusts."""
        self.promises = promises
        self.resumed: dict[str, float] = {}
        """When hosts ran on after a pause, by name."""
        self.on_task: list[Callable[[Stored, Header], None]] = []
        """Called with each message that TASKS has stored, in the step in which it was."""
        self.on_status: list[Callable[[Stored], None]] = []
        """The same of RESULTS."""
        self.on_allowed: list[Callable[[DecisionRecord, Header], None]] = []
        """Called with each stored decision that allows, and the header of the message."""
        self.policy: Callable[[Link], AbstractAsyncContextManager[Feeds]] = lambda _: nullcontext(NO_FEEDS)
        """Makes a process on a link follow the store of policies, and returns what feeds its node from there."""
        self.numbers: dict[str, int] = {}
        """The numbers of tasks whose bodies do not say theirs, by message id."""
        self._engine = engine
        self._seed = seed
        self._on_kill: dict[str, Callable[[], object]] = {}

    def note(self, what: What, number: int = 0, message: str = "", text: str = "", *, host: str = "") -> None:
        """Add to the history what happened on the present host."""
        event = Event(self.loop.now, host or CURRENT.get().name, what, number, message, text)
        self.history.append(event)
        self.promises.observe(event)

    def crash(self, text: str) -> None:
        """Note an error that no part of the product has foreseen."""
        self.promises.fail(CRASHED, Event(self.loop.now, CURRENT.get().name, What.FAULT, text=text))

    def _note_stored(self, cell: str, stream: Stream, stored: Stored) -> None:
        is_at_home = Cells(cell, self.cells).cell_of(stored.subject, {}, _identifier(stored)) == cell
        if stream.config.name != "AUDIT" and not is_at_home:
            # Somebody has captured it: nobody reads it here.
            return
        if stream.config.name == "TASKS" and self.on_task:
            header = parse_header(parse_envelope(stored.payload).header)
            for note_task in self.on_task:
                note_task(stored, header)
        if stream.config.name == "RESULTS":
            for note_status in self.on_status:
                note_status(stored)
        if stream.config.name != "AUDIT":
            return
        sender = f"records of {parse_header(parse_envelope(stored.payload).header).iss.path.rpartition('/')[2]}"
        records = records_in(stored)
        if not all(isinstance(record, CheckpointRecord) for record in records):
            self.recorded[cell] = stored.sequence
        for decision, header in _allowed(records):
            self.allowed[cell].add(header.id.hex())
            self.note(What.RECORDED, message=header.id.hex(), host=sender)
            for note_allowed in self.on_allowed:
                note_allowed(decision, header)
        for record in records if is_at_home else ():
            if isinstance(record, BundleRecord) and cell not in self.first_bundle:
                self.first_bundle[cell] = sha256(record.jwt).digest()
            if isinstance(record, CheckpointRecord):
                self.notes[cell].append(record.note)
                self.note(What.SIGNED, text=str(stored.sequence), host=sender)

    def note_lost(self, stream: str, lost: Sequence[Stored]) -> None:
        """Note the records among messages that a stream has lost."""
        for stored in lost if stream == "AUDIT" else ():
            for message in allowed_in(stored):
                self.note(What.LOST, message=message, host="world")

    def litter(self, count: int) -> None:
        """Store bytes of nobody's where `bank` and its requesters read stops, schedules, counts, floors and claims.

        They are stored in every cell, also where `bank` is not: the server of a cell stores what its agents ask for.
        """
        bank, shop = (self.names.token(self.names.id_of(name)) for name in ("bank", "shop"))
        for number in range(count):
            digest = self.random.randbytes(32).hex()
            for subject in (
                f"state.{bank}.stop.{digest}.{shop}",
                f"held.{bank}.stop.{digest}.{shop}",
                f"held.{bank}.schedule.made-up-{number}",
                f"held.{bank}.wait.{shop}.{digest[:32]}",
                f"state.{bank}.{FAILED}.{digest}",
            ):
                self._store_litter(subject)
        for consumer in CONSUMERS:
            self._store_litter(f"state.{bank}.{FLOOR}.{floor_key(TASKS, consumer).hex()}")
        stored = self.brokers[self.cell_of("bank")].streams["STATE"].after(1, (f"state.{bank}.effect.*",))
        if claims := sorted({message.subject for message in stored}):
            self._store_litter(self.random.choice(claims))

    def _store_litter(self, subject: str) -> None:
        for broker in self.brokers.values():
            with suppress(Unanswered):
                broker.publish(Outgoing(subject=subject, payload=b"{}"))

    def start(self, name: str, process: Callable[[Link], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start a process on a host of its own, which has the clock and the network of the one before."""
        host = Host(name)
        link = Link(host, self.loop)
        if (before := self.links.get(name)) is not None:
            host.ahead, host.rate = before.host.ahead, before.host.rate
            host.right_since = before.host.right_since
            link.lost, link.cut, link.latency = before.lost, before.cut, before.latency
        self.links[name] = link
        with host.entered():
            return self.loop.create_task(process(link), name=name)

    def on_kill(self, link: Link, release: Callable[[], object]) -> None:
        """Have `release` called when the process on `link` is killed: what a kernel does for it, as with a lock."""
        self._on_kill[link.host.name] = release

    def kill(self, name: str) -> None:
        """End a process as `kill -9` does."""
        host = self.links[name].host
        host.alive = False
        for broker in self.brokers.values():
            broker.disconnect(host)
        self._on_kill.pop(name, lambda: None)()

    def node(self, name: str, link: Link, feeds: Feeds = NO_FEEDS) -> Node:
        """Return a node of `name` on a host."""
        return Node(
            deployment=self.deployment,
            identity=MemoryIdentity(self.authority, self.names.id_of(name)),
            transport=self.transport(name, link),
            engine=self._engine(),
            feeds=feeds,
            host=NodeHost(elapsed=self.loop.time, random=self.random.random),
        )

    def cell_of(self, name: str) -> str:
        """Return the cell of the workload `name`."""
        placement = self.cells.get(self.names.token(self.names.id_of(name)))
        return placement.cell if placement is not None else DEFAULT

    def move(self, name: str) -> None:
        """Have the registry say that `name` is in the other cell, for what is said to it `MOVE_SECONDS` from now on."""
        (before,) = {self.cell_of(name)}
        (cell,) = {*CELLS} - {before}
        since = int((START + self.loop.now + MOVE_SECONDS) * SECOND)
        self._cells_before, self._moved_at = self.cells, self.loop.now
        self.cells = {**self.cells, self.names.token(self.names.id_of(name)): Placement(cell, before, since)}

    def cells_heard_by(self, host: str) -> Mapping[str, Placement]:
        """Return where each token is, as a process on `host` has heard it."""
        later = random.Random(f"heard {self._seed} {host}").uniform(0.0, HEARD_SECONDS)  # noqa: S311  a schedule, no secret
        return self.cells if self.loop.now >= self._moved_at + later else self._cells_before

    def transport(self, name: str, link: Link) -> Transport:
        """Return the transport of the workload `name` on a host, which reaches every cell."""
        cells = placed_by(lambda: self.cells_heard_by(link.host.name), self.names.token(self.names.id_of(name)))
        home = self.brokers[cells().own]
        return CellTransport(
            SimulatedTransport(link, home),
            cells,
            reach=lambda cell: SimulatedTransport(link, self.brokers[cell], home, cell),
            owners={},
        )

    def wall(self) -> float:
        """Return the Unix time that the clock of the present host shows."""
        host = CURRENT.get()
        return START + self.loop.now * host.rate + host.ahead

    def clock_is_right(self, since: float, name: str) -> bool:
        """Return whether the clock of a host was right all the time since then, to a second."""
        host = self.links[name].host
        return host.right_since <= since and abs(self.loop.now * (host.rate - 1.0) + host.ahead) < 1.0

    @contextmanager
    def entered(self) -> Generator[None, None, None]:
        """Have Python's clocks be those of the present host, and its random bytes follow from the seed.

        Keys and signatures stay random: OpenSSL makes them. They change no order of steps.
        """
        with (
            patch.object(time, "time_ns", lambda: int(self.wall() * 1e9)),
            patch.object(time, "time", self.wall),
            patch.object(time, "monotonic", self.loop.time),
            patch.object(time, "perf_counter", self.loop.time),
            patch.object(os, "urandom", self.random.randbytes),
            patch.object(random, "_urandom", self.random.randbytes),
            # The clocks that these took when they were imported.
            # Looks that are made four times a second and find nothing: a quarter of all steps.
            patch.object(lease, "_POLL", 2.0),
            patch.object(in_force, "TURN", 1.0),
            patch.object(loop_turns, "TURN", 1.0),
            # So few cancels as a plan has, so that a few stored values fill the room.
            patch.object(room, "OF_REQUESTER", ROOM_FOR_STOPS),
            # And others, which no promise rests on: bundles that lag behind are not simulated.
            patch.object(in_force, "PROVED_AGAIN", 10.0),
            patch.dict(Refusals.__init__.__kwdefaults__, every=10.0),
            patch.dict(Readiness.__init__.__kwdefaults__, every=10.0),
        ):
            random.seed(self.random.random())
            yield

    async def sleep_until(self, at: float) -> None:
        """Wait until a virtual time."""
        await asyncio.sleep(max(0.0, at - self.loop.now))


def records_in(stored: Stored) -> Sequence[Record]:
    """Return the records of a message of AUDIT, of which nothing is verified."""
    return tuple(parse_audit_body(parse_envelope(stored.payload).body).records.values())


def allowed_in(stored: Stored) -> list[str]:
    """Return the ids of the messages that the records of a message of AUDIT say were allowed."""
    return [header.id.hex() for _, header in _allowed(records_in(stored))]


def _allowed(records: Sequence[Record]) -> list[tuple[DecisionRecord, Header]]:
    decisions = [record for record in records if isinstance(record, DecisionRecord) and record.allow]
    return [(decision, parse_header(decision.header)) for decision in decisions]


def _identifier(stored: Stored) -> str:
    """Return the id that the headers of a message say, or an empty text."""
    found = re.search(rb"\r\nNats-Msg-Id: ([0-9a-f]{32})\r\n", stored.block)
    return found[1].decode() if found is not None else ""
