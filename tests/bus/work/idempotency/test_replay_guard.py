"""What may be used only once: by any process, over restarts, and whatever somebody else has stored in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256

import pytest
from support.acceptance import INVENTORY, ISSUER, PLANNER
from support.envelopes import NOW
from support.faulty_transport import OUTRUN, FaultyTransport
from support.sites import inventory_identity, site_of
from support.x509 import ThrowawayCa

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.streams.signed_value import signed
from sealbus.bus.work.idempotency import replay_guard as module
from sealbus.bus.work.idempotency.replay_guard import DIGEST_BYTES, MOST, SLOTS, ReplayGuard
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import BusUnavailable, IdentityUnavailable, StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer

CA = ThrowawayCa("example.org")
LIFE = 70 * SECOND


class Site:
    """Processes of one identity on one broker and one clock."""

    def __init__(self) -> None:
        self.now = NOW
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("STATE", ["state.>"])
        self.transport = FaultyTransport(self.broker)

    def process(
        self, name: str = "proof", seal: Callable[[], Sealer] = lambda: ISSUER.sealer(INVENTORY)
    ) -> ReplayGuard:
        return ReplayGuard(name, site_of(self.transport, lambda: self.now, identity=inventory_identity(seal)))

    def subjects(self) -> set[str]:
        return {one.subject for one in self.broker.streams["STATE"].stored}

    async def use(self, guard: ReplayGuard, digest: bytes, *, made: int | None = None) -> bool:
        made = self.now if made is None else made
        return await guard.use(digest, made=made, until=made + LIFE)


@pytest.fixture
def site() -> Site:
    return Site()


def digest(text: str, *, slot: int | None = None) -> bytes:
    """Return a digest, of `slot` where that matters."""
    made = sha256(text.encode()).digest()[:DIGEST_BYTES]
    return made if slot is None else slot.to_bytes(2) + made[2:]


async def test_it_is_the_first_use_once_whoever_asks(site: Site) -> None:
    one, two = site.process(), site.process()
    assert await site.use(one, digest("a"))
    assert not await site.use(one, digest("a"))
    assert not await site.use(two, digest("a"))
    assert not await site.use(site.process(), digest("a"))
    assert await site.use(two, digest("b"))


async def test_whether_it_was_used_is_known_without_a_use(site: Site) -> None:
    one, two = site.process(), site.process()
    assert not await one.used(digest("a"), made=site.now)
    assert site.subjects() == set()
    await site.use(two, digest("a"))
    assert await one.used(digest("a"), made=site.now)
    assert not await one.used(digest("b"), made=site.now)
    assert not await site.use(one, digest("a"))


async def test_of_many_at_once_one_is_the_first(site: Site) -> None:
    guards = [site.process() for _ in range(4)]
    used = await asyncio.gather(*(site.use(guards[at % 4], digest("a")) for at in range(12)))
    assert sum(used) == 1


async def test_uses_of_one_slot_are_all_kept(site: Site) -> None:
    one, two = site.process(), site.process()
    for at in range(6):
        assert await site.use((one, two)[at % 2], digest(f"{at}", slot=5))
    for at in range(6):
        assert not await site.use(site.process(), digest(f"{at}", slot=5))
    assert site.subjects() == {"state.inventory.proof.5"}


async def test_digests_that_differ_in_one_bit_are_two(site: Site) -> None:
    guard, one = site.process(), digest("a")
    other = one[:-1] + bytes([one[-1] ^ 1])
    assert await site.use(guard, one)
    assert not await guard.used(other, made=site.now)
    assert await site.use(guard, other)


async def test_slots_are_as_many_as_declared(site: Site) -> None:
    guard = site.process()
    assert await site.use(guard, digest("a", slot=3))
    assert await site.use(guard, digest("b", slot=3 + SLOTS))
    assert site.subjects() == {"state.inventory.proof.3"}


async def test_two_names_know_nothing_of_each_other(site: Site) -> None:
    assert await site.use(site.process("proof"), digest("a"))
    assert await site.use(site.process("assertion"), digest("a"))


async def test_what_is_over_is_forgotten(site: Site) -> None:
    guard = site.process()
    assert await site.use(guard, digest("a", slot=5))
    first = site.broker.streams["STATE"].stored[-1].payload
    site.now += LIFE
    assert await site.use(guard, digest("b", slot=5))
    assert len(site.broker.streams["STATE"].stored[-1].payload) == len(first)


async def test_a_value_that_the_stream_let_go_is_written_anew(site: Site) -> None:
    guard = site.process()
    assert await site.use(guard, digest("a", slot=5))
    site.broker.streams["STATE"].remove(1)
    assert await site.use(guard, digest("b", slot=5))
    assert not await site.use(site.process(), digest("b", slot=5))


async def test_there_is_room_for_so_many_in_a_slot(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST * 24 < 32_768
    monkeypatch.setattr(module, "MOST", 2)
    guard = site.process()
    assert await site.use(guard, digest("a", slot=5))
    assert await site.use(guard, digest("b", slot=5))
    with pytest.raises(StateUnavailable):
        await site.use(guard, digest("c", slot=5))
    assert not await site.use(guard, digest("a", slot=5))
    site.now += LIFE
    assert await site.use(guard, digest("c", slot=5))


async def test_a_full_slot_can_be_read(site: Site) -> None:
    guard = site.process()
    for at in range(MOST):
        assert await site.use(guard, digest(f"{at}", slot=5))
    assert not await site.use(site.process(), digest("7", slot=5))


async def test_without_the_stream_nothing_is_a_first_use(site: Site) -> None:
    guard = site.process()
    site.broker.fail("STATE", BusUnavailable("down"))
    with pytest.raises(BusUnavailable):
        await site.use(guard, digest("a"))
    site.broker.fail("STATE", None)
    assert await site.use(guard, digest("a"))


async def test_an_unheard_acknowledgement_is_a_use(site: Site) -> None:
    guard = site.process()
    site.transport.unheard = True
    with pytest.raises(BusUnavailable):
        await site.use(guard, digest("a"))
    site.transport.unheard = False
    assert not await site.use(guard, digest("a"))


async def test_without_a_credential_nothing_is_stored(site: Site) -> None:
    def none() -> Sealer:
        raise IdentityUnavailable("none")

    with pytest.raises(IdentityUnavailable):
        await site.use(site.process(seal=none), digest("a"))
    assert site.subjects() == set()


async def test_it_gives_up_where_others_write_all_the_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.transport.refusal = OUTRUN
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0)
    with pytest.raises(StateUnavailable):
        await site.use(site.process(), digest("a"))


def test_a_digest_has_a_length(site: Site) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        asyncio.run(site.use(site.process(), b"short"))


def changed(stored: bytes, part: int, *, by: Sealer | None = None, **changes: Value) -> bytes:
    """Return a stored value with an element of its payload replaced, signed anew by `by`."""
    parts = decode(stored, text_bytes=32_768, step=0)
    assert isinstance(parts, list)
    assert isinstance(parts[0], bytes)
    value = decode(parts[0], text_bytes=32_768, step=0)
    assert isinstance(value, list)
    value[part] = changes["to"]
    sealer = by or ISSUER.sealer(INVENTORY)
    made = signed(encode(value, text_bytes=32_768), "application/vnd.sealbus.uses.v1", sealer)
    return encode([*made], text_bytes=32_768)


PLANTS: dict[str, Callable[[bytes], bytes]] = {
    "nonsense": lambda stored: b"\xc1",
    "no array": lambda stored: encode(7),
    "too few parts": lambda stored: encode([b"", b"", b""]),
    "an empty payload": lambda stored: encode([b"", b"", b"", b""]),
    "another version": lambda stored: changed(stored, 0, to=2),
    "another name": lambda stored: changed(stored, 1, to="assertion"),
    "another slot": lambda stored: changed(stored, 2, to=6),
    "another agent's": lambda stored: changed(stored, 4, to=b"", by=PLANNER),
    "an older one": lambda stored: changed(stored, 3, to=NOW - 60 * SECOND - 1),
    "one of the future": lambda stored: changed(stored, 3, to=NOW + 5 * SECOND + 1),
    "no time": lambda stored: changed(stored, 3, to="now"),
}


@pytest.mark.parametrize("planted", list(PLANTS))
async def test_what_is_planted_in_its_place_makes_no_use_forgotten(site: Site, planted: str) -> None:
    assert await site.use(site.process(), digest("a", slot=5))
    [value] = site.broker.streams["STATE"].stored
    site.broker.inject(value.subject, PLANTS[planted](value.payload))
    other = site.process()
    for made in (NOW, NOW + 5 * SECOND):
        with pytest.raises(StateUnavailable):
            await site.use(other, digest("b", slot=5), made=made)
    with pytest.raises(StateUnavailable):
        await site.use(other, digest("a", slot=5))
    # What was made since cannot have been used before.
    site.now += 6 * SECOND
    assert await site.use(other, digest("c", slot=5), made=NOW + 5 * SECOND + 1)
    assert not await site.use(site.process(), digest("c", slot=5))


@pytest.mark.parametrize("at", [NOW - 60 * SECOND, NOW + 5 * SECOND])
async def test_clocks_may_differ_a_little(site: Site, at: int) -> None:
    assert await site.use(site.process(), digest("a", slot=5))
    [value] = site.broker.streams["STATE"].stored
    site.broker.inject(value.subject, changed(value.payload, 3, to=at))
    assert not await site.use(site.process(), digest("a", slot=5))


async def test_what_a_process_knows_is_not_planted(site: Site) -> None:
    one = site.process()
    assert await site.use(one, digest("a", slot=5))
    [value] = site.broker.streams["STATE"].stored
    site.broker.inject(value.subject, b"\xc1")
    assert not await site.use(one, digest("a", slot=5))
