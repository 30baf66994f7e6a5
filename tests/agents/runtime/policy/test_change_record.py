"""What operators change is recorded before it is changed, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from support.lab import agent_id, make_stream, running
from support.policies import signing_key
from support.policy_bus import pushed
from support.teams import signed_platform

from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.policy import change_record
from sealbus.agents.runtime.policy.change_record import ChangeRecorder
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.sending.outbox import Outbox
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.operation import ChangeRecord
from sealbus.envelopes.records.record import Record
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.denials import DENIAL, pack_denial
from sealbus.policies.bundle.signing import sign_bundle

pytestmark = pytest.mark.nats

ROOT = signing_key()
PLATFORM = signed_platform(ROOT, {}, serial=1)
ENTRY = sign_bundle(
    pack_denial({"sealbus": {"registry": {"revoked": {"users": {"eve": {}}}}}}, 2), ROOT, scope=DENIAL
).raw


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_record, "WITHIN", 1.0)
    monkeypatch.setattr(change_record, "SOON", 0.5)


@dataclass
class Desk:
    connection: Connection
    outbox: Outbox
    transport: NatsTransport
    warned: list[str] = field(default_factory=list)

    def store(self, action: str, *, must: bool = True, reason: str = "left") -> PolicyStore:
        recorder = ChangeRecorder(
            outbox=self.outbox,
            transport=self.transport,
            subject="audit.a",
            action=action,
            target="user eve",
            reason=reason,
            must=must,
            warn=self.warned.append,
        )
        return PolicyStore(self.connection, "policies", before=recorder)

    async def records(self) -> list[Record]:
        found: list[Record] = []
        async for batch in self.transport.read("AUDIT", ["audit.>"]):
            for delivery in batch:
                found += parse_audit_body(parse_envelope(delivery.payload).body).records.values()
        return found


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Desk]:
    async with running(folder, "a") as lab, lab.connection("a") as connection:
        transport = NatsTransport(connection)
        identity = MemoryIdentity(DevelopmentAuthority(TrustDomain("example.org")), SpiffeId(agent_id("a")))
        async with Outbox(identity=identity, transport=transport) as outbox:
            desk = Desk(connection, outbox, transport)
            await desk.store("push").create()
            yield desk


async def test_a_push_and_a_denial_are_recorded_with_what_is_stored(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await make_stream(desk.connection, "AUDIT", "audit.>")
        await pushed(desk.store("push"), "platform", PLATFORM, 1)
        assert await desk.store("deny", must=False).deny(ENTRY, 2)
        about = {"target": "user eve", "reason": "left"}
        assert await desk.records() == [
            ChangeRecord(action="push", part="platform", serial=1, digest=sha256(PLATFORM).digest(), **about),
            ChangeRecord(action="deny", part="platform", serial=2, digest=sha256(ENTRY).digest(), **about),
        ]
        assert desk.warned == []


async def test_what_cannot_be_recorded_is_not_pushed_and_is_denied_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await pushed(PolicyStore(desk.connection, "policies"), "platform", PLATFORM, 1)
        # It takes nothing: each message is too large.
        await make_stream(desk.connection, "AUDIT", "audit.>", max_msg_size=16)
        with pytest.raises(BusUnavailable, match=r"no record of this change.*; nothing was changed"):
            await pushed(desk.store("push"), "platform", signed_platform(ROOT, {}, serial=2), 2)
        assert await desk.store("push").serials("platform") == [1]
        assert await desk.store("deny", must=False).deny(ENTRY, 2)
        assert list(await desk.store("push").denials(after=0)) == [2]
        [warning] = desk.warned
        assert "no record of this change" in warning


async def test_a_denial_is_made_with_a_reason_that_no_record_can_hold(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await pushed(PolicyStore(desk.connection, "policies"), "platform", PLATFORM, 1)
        await make_stream(desk.connection, "AUDIT", "audit.>")
        store = desk.store("deny", must=False, reason="two\nlines")
        assert await store.deny(ENTRY, 2)
        # Nor is it tried again within the command.
        assert not await store.deny(ENTRY, 2)
        assert len(desk.warned) == 1
        with pytest.raises(BusUnavailable, match="nothing was changed"):
            await pushed(desk.store("push", reason="two\nlines"), "platform", PLATFORM, 3)
        assert await desk.records() == []


async def test_before_there_is_a_stream_of_records_everything_is_changed(tmp_path: Path) -> None:
    async with opened(tmp_path) as desk:
        await pushed(desk.store("push"), "platform", PLATFORM, 1)
        assert await desk.store("push").serials("platform") == [1]
        assert desk.warned == ["no stream takes records yet: this change is not recorded"]
