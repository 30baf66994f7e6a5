"""A site of a simulation: its broker, its hosts, their clocks, and the history of what happened."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from sealbus.agents.control.notary import lease
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.memory.jetstream import Stored, Stream
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.node import Deployment, Node
from sealbus.agents.runtime.node import Host as NodeHost
from sealbus.bus.work.cancel import in_force
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import CheckpointRecord
from sealbus.envelopes.records.record import Record
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.decision.engine import PolicyEngine
from simulation.broker import SimulatedBroker
from simulation.history import Event, What
from simulation.loop import CURRENT, Host, SimulatedLoop
from simulation.network import Link, SimulatedTransport
from simulation.properties import Promises

__all__ = ["START", "Site"]

START: Final = 1_900_000_000
"""Unix time at which each simulation begins."""


class Site:
    """One site, whose processes are started and killed by name."""

    def __init__(self, seed: int, *, engine: Callable[[], PolicyEngine], promises: Promises, replicas: int = 3) -> None:
        self.loop = SimulatedLoop(seed)  # type: ignore[abstract]  # sockets and processes are not simulated
        self.random = random.Random(f"site {seed}")  # noqa: S311  a schedule, no secret
        self.broker = SimulatedBroker(self.loop, start=START * SECOND, replicas=replicas)
        self.broker.on_stored = self._note_stored
        self.names = Names(TrustDomain("example.org"))
        self.authority = DevelopmentAuthority(self.names.trust_domain, clock=self.broker.clock)
        self.deployment = Deployment(
            names=self.names, notaries=frozenset({self.names.id_of("notary")}), development=True
        )
        self.links: dict[str, Link] = {}
        self.history: list[Event] = []
        self.notes: list[bytes] = []
        """The checkpoints that were published."""
        self.recorded = 0
        """The last sequence of AUDIT with more than checkpoints, which a checkpoint has to follow."""
        self.promises = promises
        self.resumed: dict[str, float] = {}
        """When hosts ran on after a pause, by name."""
        self._engine = engine
        self._on_kill: dict[str, Callable[[], None]] = {}

    def note(self, what: What, number: int = 0, message: str = "", text: str = "", *, host: str = "") -> None:
        """Add to the history what happened on the present host."""
        event = Event(self.loop.now, host or CURRENT.get().name, what, number, message, text)
        self.history.append(event)
        self.promises.observe(event)

    def _note_stored(self, stream: Stream, stored: Stored) -> None:
        if stream.config.name != "AUDIT":
            return
        sender = f"records of {parse_header(parse_envelope(stored.payload).header).iss.path.rpartition('/')[2]}"
        records = records_in(stored)
        if not all(isinstance(record, CheckpointRecord) for record in records):
            self.recorded = stored.sequence
        for message in allowed_in(stored):
            self.note(What.RECORDED, message=message, host=sender)
        for record in records:
            if isinstance(record, CheckpointRecord):
                self.notes.append(record.note)
                self.note(What.SIGNED, text=str(stored.sequence), host=sender)

    def lose(self, stream: str, count: int) -> None:
        """Lose the last messages of a stream, and note the records among them."""
        for stored in self.broker.lose(stream, count):
            if stream == "AUDIT":
                for message in allowed_in(stored):
                    self.note(What.LOST, message=message, host="world")

    def start(self, name: str, process: Callable[[Link], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Start a process on a host of its own, which has the clock and the network of the one before."""
        host = Host(name)
        link = Link(host, self.broker)
        if (before := self.links.get(name)) is not None:
            host.ahead, host.rate = before.host.ahead, before.host.rate
            host.right_since = before.host.right_since
            link.lost, link.cut = before.lost, before.cut
        self.links[name] = link
        with host.entered():
            return self.loop.create_task(process(link), name=name)

    def on_kill(self, link: Link, release: Callable[[], None]) -> None:
        """Have `release` called when the process on `link` is killed: what a kernel does for it, as with a lock."""
        self._on_kill[link.host.name] = release

    def kill(self, name: str) -> None:
        """End a process as `kill -9` does."""
        host = self.links[name].host
        host.alive = False
        self.broker.disconnect(host)
        self._on_kill.pop(name, lambda: None)()

    def node(self, name: str, link: Link) -> Node:
        """Return a node of `name` on a host."""
        return Node(
            deployment=self.deployment,
            identity=MemoryIdentity(self.authority, self.names.id_of(name)),
            transport=SimulatedTransport(link),
            engine=self._engine(),
            host=NodeHost(elapsed=self.loop.time, random=self.random.random),
        )

    def wall(self) -> float:
        """Return the Unix time that the clock of the present host shows."""
        host = CURRENT.get()
        return START + self.loop.now * host.rate + host.ahead

    def clock_is_right(self, since: float) -> bool:
        """Return whether the clock of the present host was right all the time since then, to a second."""
        host = CURRENT.get()
        return host.right_since <= since and abs(self.wall() - START - self.loop.now) < 1.0

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
            # Looks that are made four times a second and find nothing: a quarter of all steps.
            patch.object(lease, "_POLL", 1.0),
            patch.object(in_force, "TURN", 1.0),
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
    decisions = [record for record in records_in(stored) if isinstance(record, DecisionRecord) and record.allow]
    return [parse_header(decision.header).id.hex() for decision in decisions]
