"""Floods on a real server: what one agent, with the permissions of an agent, has stored in the places of others.

nats-server does not ask whether a client may publish to the reply subject of its request, and in one account its answer is
stored there (SECURITY.md). So an agent that reads a value of its own under such a reply subject stores bytes there.
`Ground.detours` says whether that is so: where agents have an account of their own, nothing of it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from support.engines import ScriptedEngine
from support.real_bus import RealBus, real_bus

from sealbus import Agent, Client
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.frames import publish_frame
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.bus.stream_names import STATE
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.bus.streams.signed_value import signed
from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.engine import PolicyEngine

__all__ = ["FULL", "GROUNDS", "ROOM", "Ground", "flooded_bus", "forged_value"]

GROUNDS = ("one account", "two accounts")
"""The layouts of accounts that each flood is tried on."""

FULL = 1 << 20
"""Bytes of a stream that a test fills, and `ROOM` once an operator has made room."""
ROOM = 1 << 26
ROGUE = "rogue"
_MINE = f"state.{ROGUE}.mine"
_AT_ONCE = 500


@dataclass
class Ground:
    """A bus with an operator, and the agent `rogue`, which floods it."""

    bus: RealBus
    detours: bool

    async def plant(self, subjects: Sequence[str], payload: bytes = b'{"error":"an answer of the server"}') -> None:
        """Have the server store `payload` under each of `subjects`, as often as it is named."""
        rogue = self.bus.connections[ROGUE]
        transport = NatsTransport(rogue)
        [ack] = await transport.publish([Outgoing(subject=_MINE, payload=payload)], deadline=5.0)
        assert not isinstance(ack, Exception), ack
        before = await self.stored()
        read = Outgoing(subject=f"$JS.API.DIRECT.GET.{STATE}.{_MINE}", payload=b"")
        for start in range(0, len(subjects), _AT_ONCE):
            rogue.link.write(b"".join([publish_frame(read, reply=one) for one in subjects[start : start + _AT_ONCE]]))
            await transport.last(STATE, _MINE, within=10.0)
        if self.detours:
            async with asyncio.timeout(60):
                while await self.stored() < before + len(subjects):  # noqa: ASYNC110  the server stores it
                    await asyncio.sleep(0.05)
        else:
            assert await self.stored() == before

    async def send(self, subjects: Sequence[str], payload: bytes = b"junk") -> list[Exception]:
        """Have the rogue publish `payload` under each of `subjects`, which it may; return what was not stored."""
        transport = NatsTransport(self.bus.connections[ROGUE])
        failed: list[Exception] = []
        for start in range(0, len(subjects), _AT_ONCE):
            some = [Outgoing(subject=one, payload=payload) for one in subjects[start : start + _AT_ONCE]]
            failed += [one for one in await transport.publish(some, deadline=30.0) if isinstance(one, Exception)]
        return failed

    async def resize(self, **sizes: int) -> None:
        """Have the operator declare streams of these sizes, in bytes."""
        declared = {"TASKS": ROOM, "AUDIT": ROOM, **sizes}
        await apply(declared_streams(declared), self.bus.connections["operator"].jetstream)

    async def fill(self, stream: str, subject: str) -> None:
        """Have the rogue fill a stream to the last byte by what it may publish: `subject`, each time another `{number}`."""
        await self.resize(**{stream: FULL})
        for size in (FULL // 100, 300, 1):
            subjects = [subject.format(number=f"{size}-{number}") for number in range(150)]
            refused = await self.send(subjects, bytes(size))
            assert refused
            assert all("maximum bytes exceeded" in str(one) for one in refused)

    async def client(self, name: str = "shop") -> Client:
        """Return a client in a process of its own."""
        return Client.on(await self.bus.node(name, ScriptedEngine()))

    def workers(
        self, *agents: Agent, limits: WorkerLimits | None = None, engine: PolicyEngine | None = None
    ) -> AbstractAsyncContextManager[list[Worker]]:
        """Run a process for each of `agents`, as `RealBus.workers` does."""
        return self.bus.workers(*agents, limits=limits, engine=engine)

    async def stored(self, stream: str = "") -> int:
        """Return how many messages were ever stored, in one stream or in all."""
        request = self.bus.connections["operator"].jetstream
        total = 0
        listed = await api(request, "STREAM.LIST")
        streams = listed["streams"]
        assert isinstance(streams, list)
        for one in streams:
            if stream in ("", one["config"]["name"]):
                total += int(one["state"]["last_seq"])
        return total

    async def under(self, stream: str, subjects: str) -> int:
        """Return how many messages a stream has on these subjects."""
        info = await api(
            self.bus.connections["operator"].jetstream, f"STREAM.INFO.{stream}", {"subjects_filter": subjects}
        )
        state = info["state"]
        assert isinstance(state, dict)
        return sum((state.get("subjects") or {}).values())

    def forged(self, subject: str, owner: str, payload_type: str, **keys: Value) -> bytes:
        """Return what has the form of a value of HELD under `subject`, of the agent `owner`, signed by `rogue`."""
        sealer = MemoryIdentity(self.bus.authority, self.bus.names.id_of(ROGUE)).sealer()
        return forged_value(subject, self.bus.names.id_of(owner), payload_type, sealer, at=wall_clock(), **keys)


def forged_value(subject: str, own: SpiffeId, payload_type: str, sealer: Sealer, *, at: int, **keys: Value) -> bytes:
    """Return what has the form of a newer value of `own` under `subject`, and is signed by another."""
    payload: dict[str, Value] = {
        "v": 1,
        "own": own.value,
        "sub": subject,
        "n": 1_000,
        "at": at,
        "ext": sha256(b"").digest(),
        **keys,
    }
    return encode([*signed(encode(payload, text_bytes=2_048), payload_type, sealer), b""])


@asynccontextmanager
async def flooded_bus(folder: Path, ground: str, *names: str) -> AsyncIterator[Ground]:
    """Run a server with the agents `names` and the rogue, each with its permissions, on one of `GROUNDS`."""
    assert ground in GROUNDS
    apart = ground == "two accounts"
    async with real_bus(folder, *names, ROGUE, permitted=True, apart=apart) as bus:
        for one in ("operator", ROGUE):
            await bus.node(one, ScriptedEngine())
        yield Ground(bus, detours=not apart)
