"""A notary by its settings on a real server, under its own NATS permissions, while every key that signs rotates away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.notary import NOTARY, ORIGIN, last_place, read_log, record_wire

from sealbus.agents.control.notary import open_notary
from sealbus.agents.control.notary.keys import make_key_file
from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.runtime.open import open_connection
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Identity, Outgoing, PubAck
from sealbus.bus.streams.held import Held, HeldValue, PastTrust, current_only
from sealbus.bus.streams.key_book import KeyBook
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow]


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    options = DevOptions(folder=tmp_path / "dev", agents=("notary", "shop"), port=-1, max_bytes=1 << 26, jwt_ttl=45)
    async with open_environment(options) as running:
        await running.nats.permit(running.names.id_of("notary"), BrokerRole.NOTARY)
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  files of another task: there is no event to wait for
            await asyncio.sleep(0.02)


def kids(jwks: bytes) -> set[str]:
    return {key["kid"] for key in json.loads(jwks)["keys"]}


def sealed(folder: Path, key: NoteVerifier, sequence: int) -> bool:
    store = FolderStore(folder)
    note = store.get(CHECKPOINT)
    if note is None:
        return False
    size = open_checkpoint(note, origin=ORIGIN, verifiers=[key]).checkpoint.size
    return last_place(store, size).sequence >= sequence


def held_by(
    identity: Identity, transport: NatsTransport, environment: Environment, past: PastTrust = current_only
) -> Held:
    return Held(
        transport,
        trust=lambda: Trust(bundles=identity.bundles()),
        past=past,
        names=environment.names,
        caches=Caches(),
    )


async def test_what_was_signed_with_keys_that_are_gone_verifies(environment: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    key = make_key_file(tmp_path / "notary.key", ORIGIN).verifier
    file = tmp_path / "sealbus.toml"
    table = ["[control.notary]", f'origin = "{ORIGIN}"', 'keys = ["notary.key"]', 'folder = "log"']
    file.write_text("\n".join([environment.settings_file.read_text(), *table]) + "\n")
    authority = environment.authority
    first = authority.jwt_bundle()
    number = 0
    async with (
        open_connection("shop", environment.settings) as (shop, connection),
        open_notary(load_settings(file, environment={})) as notary,
    ):
        transport = NatsTransport(connection)
        keeping = asyncio.create_task(notary.run())

        async def record() -> None:
            """Seal with whatever key the authority vouches with now, and wait for the checkpoint over it."""
            nonlocal number
            number += 1
            subject, payload = record_wire(
                MemoryIdentity(authority, environment.names.id_of("shop")), number, wall_clock()
            )
            [answer] = await transport.publish([Outgoing(subject=subject, payload=payload)], deadline=60.0)
            assert isinstance(answer, PubAck)
            await until(lambda: sealed(folder, key, answer.sequence))

        await record()
        value, then = "held.shop.task.q.00", wall_clock()
        held = held_by(shop, transport, environment)
        assert await held.write(value, {}, "t", shop.sealer()) is not None
        authority.prepare_jwt()
        await record()
        authority.activate_jwt()
        await record()
        # A key goes only when nothing that it vouched for is in use: the notary's own credential is renewed at half life.
        before = notary._site.identity.sealer().credential
        await until(lambda: notary._site.identity.sealer().credential != before)
        authority.prune_jwt()
        await record()
        assert notary.problem == ""
        # What an agent signed with the first key counts by the key book, and by nothing else.
        await until(lambda: kids(first).isdisjoint(shop.bundles()[NOTARY.trust_domain].keys))
        assert await held.newest("held.shop.>", "t") == {}
        found_by_book: dict[str, HeldValue] = {}
        async with asyncio.timeout(60):
            while not found_by_book:
                book = KeyBook(
                    transport,
                    notaries=[NOTARY],
                    trust=lambda: Trust(bundles=shop.bundles()),
                    names=environment.names,
                    caches=Caches(),
                )
                with suppress(StateUnavailable):
                    found_by_book = await held_by(shop, transport, environment, book).newest("held.shop.>", "t")
        assert list(found_by_book) == [value]
        assert found_by_book[value].stored >= then - SECOND
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    assert kids(first).isdisjoint(kids(authority.jwt_bundle()))
    async with open_connection("operator", environment.settings) as (_, connection):
        found = await read_log(NatsTransport(connection), folder, NOTARY, verifiers=[key], whole=False)
    assert len(found.bundles) >= 3
    assert found.kinds(EntryKind.UNVERIFIED) == []
    assert len(found.kinds(EntryKind.VERIFIED)) >= number + len(found.bundles)
