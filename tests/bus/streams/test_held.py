"""Values in HELD: the newest genuine version counts, whatever others have stored under its subject, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import pytest
from support.acceptance import INVENTORY, ISSUER, PLANNER, TRUST
from support.envelopes import HOUR, MINUTE, NAMES, NOW, TRUST_DOMAIN, Issuer, agent, private_key

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Delivery, PubAck, StoredValue, Transport
from sealbus.bus.streams import held as module
from sealbus.bus.streams.held import (
    PAYLOAD_BYTES,
    PAYLOAD_ITEMS,
    VALUE_BYTES,
    Held,
    HeldValue,
    PastTrust,
    current_only,
    verified_then,
)
from sealbus.bus.streams.signed_value import signed
from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.errors import (
    BusUnavailable,
    Code,
    ConfigurationError,
    EnvelopeError,
    SealError,
    StateUnavailable,
)
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches

TYPE = "application/vnd.sealbus.test.v1"
OWN = ISSUER.sealer(INVENTORY)
SUBJECT, PATTERN = "held.inventory.task.q.00", "held.inventory.task.*.00"

FORMER = Issuer(kid="key-0", key=private_key("former issuer"))
"""The issuer of a key that has left the bundle."""
FORMER_TRUST = Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, FORMER.jwks())]))


class Past:
    """The past that a test gives, or nothing that is known."""

    def __init__(self, *trust: Trust, error: StateUnavailable | None = None) -> None:
        self.trust = trust
        self.error = error
        self.asked: list[int] = []

    async def at(self, time: int) -> Sequence[Trust]:
        self.asked.append(time)
        if self.error is not None:
            raise self.error
        return self.trust


@dataclass
class Site:
    """A broker with HELD at a time that the test sets, and the inventory's values in it."""

    now: int = NOW
    past: PastTrust = current_only
    trust: Trust = TRUST
    broker: MemoryBroker = field(init=False)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("HELD", ["held.>"], max_bytes=1 << 30)

    def held(self, transport: MemoryTransport | None = None) -> Held:
        return Held(
            transport or self.broker.connect(),
            trust=lambda: self.trust,
            past=self.past,
            names=NAMES,
            caches=Caches(),
            clock=BusClock(lambda: self.now),
        )

    async def write(
        self,
        text: str,
        before: HeldValue | None = None,
        *,
        last: int = 0,
        extra: bytes = b"",
        subject: str = SUBJECT,
        sealer: Sealer = OWN,
    ) -> int | None:
        stored = await self.held().write(subject, {"txt": text}, TYPE, sealer, before=before, last=last, extra=extra)
        return stored.last if stored is not None else None

    async def value(self, pattern: str = PATTERN) -> HeldValue | None:
        found = await self.held().newest(pattern, TYPE)
        assert set(found) <= {SUBJECT}
        return found.get(SUBJECT)

    async def text(self) -> str:
        """Return what counts; empty if nothing does."""
        value = await self.value()
        return value.keys.text("txt") if value is not None else ""

    def plant(self, raw: bytes, subject: str = SUBJECT) -> int:
        ack = self.broker.inject(subject, raw)
        assert isinstance(ack, PubAck)
        return ack.sequence

    def stored(self) -> Sequence[Delivery]:
        return self.broker.streams["HELD"].stored


def made(
    sealer: Sealer = OWN,
    *,
    payload_type: str = TYPE,
    extra: bytes = b"",
    change: Callable[[list[Value]], None] = lambda _: None,
    **keys: Value,
) -> bytes:
    """Return a value as whoever has `sealer` would forge it."""
    payload: dict[str, Value] = {
        "v": 1,
        "own": INVENTORY.value,
        "sub": SUBJECT,
        "n": 1,
        "at": NOW,
        "ext": sha256(extra).digest(),
        "txt": "forged",
        **keys,
    }
    kept: dict[str, Value] = {key: value for key, value in payload.items() if value is not None}
    array: list[Value] = [*signed(encode(kept, text_bytes=4_096), payload_type, sealer), extra]
    change(array)
    return encode(array)


async def test_what_is_written_is_found_and_its_next_version_counts() -> None:
    site = Site()
    assert await site.value() is None
    assert await site.write("first", extra=b"mail") == 1
    first = await site.value()
    assert first is not None
    assert (first.subject, first.own, first.number, first.at, first.stored, first.last) == (
        SUBJECT,
        INVENTORY,
        1,
        NOW,
        NOW,
        1,
    )
    assert first.extra == b"mail"
    site.now += HOUR
    # A credential lives an hour; a version after that needs another.
    second = ISSUER.sealer(INVENTORY, iat=site.now, exp=site.now + HOUR)
    assert await site.write("second", first, sealer=second) == 2
    found = await site.value()
    assert found is not None
    assert (found.keys.text("txt"), found.number, found.extra, found.last) == ("second", 2, b"", 2)
    assert "second" not in repr(found)


FORGED: list[bytes] = [
    b"",
    b"junk",
    encode([]),
    encode([b"", b"", b"", b"", b""]),
    encode([b"", b"", b"", b""]),
    encode([1, b"", b"", b"", b""]),
    encode({"v": 1}),
    b"\xdd\xff\xff\xff\xff",
    encode([b"x" * (VALUE_BYTES + 1)]),
    made()[:-1],
    made() + b"\x00",
    made(change=lambda array: array.append(b"")),
    made(change=lambda array: array.__setitem__(0, encode({"v": 1}))),
    made(change=lambda array: array.__setitem__(1, bytes(64))),
    made(change=lambda array: array.__setitem__(2, b"no key")),
    made(change=lambda array: array.__setitem__(3, b"no token")),
    made(change=lambda array: array.__setitem__(4, b"another extra")),
    made(extra=b"mail", change=lambda array: array.__setitem__(4, b"")),
    made(PLANNER),
    made(PLANNER, own=agent("planner").value),
    made(payload_type=TYPE + "x"),
    made(sub="held.inventory.task.q.01"),
    made(n=0),
    made(n=None),
    made(own="inventory"),
    made(own=None),
    made(ext=bytes(32)),
    made(v=2),
    made(txt="x" * 2_049),
    made(many=["x"] * (PAYLOAD_ITEMS + 1)),
    made(txt=b"x" * PAYLOAD_BYTES),
    made(extra=b"x" * VALUE_BYTES),
    made(at=NOW - MINUTE - 1),
    made(at=NOW + 5 * SECOND + 1),
    made(FORMER.sealer(INVENTORY)),
    made(ISSUER.sealer(INVENTORY, iat=NOW - 2 * HOUR, exp=NOW - 1 * SECOND)),
]


# Numbered: signatures differ from run to run.
@pytest.mark.parametrize("raw", FORGED, ids=[str(number) for number in range(len(FORGED))])
async def test_what_others_or_the_past_made_neither_counts_nor_hides_what_does(raw: bytes) -> None:
    site = Site()
    site.plant(raw)
    assert await site.value() is None
    assert await site.held().standing(SUBJECT, TYPE) == (None, 1)
    # Nothing that counts stands there: the first version goes behind what others have stored.
    assert await site.write("genuine") is None
    assert await site.write("genuine", last=1) == 2
    site.plant(raw)
    found = await site.value()
    assert found is not None
    assert (found.keys.text("txt"), found.last) == ("genuine", 3)
    assert await site.write("next", found) == 4
    assert await site.text() == "next"


@pytest.mark.parametrize("at", [NOW - MINUTE, NOW, NOW + 5 * SECOND])
async def test_clocks_may_differ_as_much_as_everywhere(at: int) -> None:
    site = Site()
    site.plant(made(at=at))
    assert await site.text() == "forged"


async def test_a_genuine_value_elsewhere_is_nobodys_there() -> None:
    site = Site()
    await site.write("genuine")
    [genuine] = site.stored()
    for subject in ("held.inventory.task.q.01", "held.planner.task.q.00", "held.inventory", "held"):
        site.broker.streams["HELD"].store(subject, genuine.payload, b"", {})
    assert list(await site.held().newest("held.>", TYPE)) == [SUBJECT]


async def test_a_broker_that_delivers_more_than_was_asked_for_is_not_believed() -> None:
    site = Site()
    await site.write("genuine")

    class Generous(MemoryTransport):
        async def read(self, stream: str, subjects: Sequence[str], **more: object):  # type: ignore[no-untyped-def]  # the same
            async for batch in super().read(stream, ["held.>"]):
                yield [*batch, batch[0]._replace(arrival=None)]

    transport = Generous(site.broker)
    assert await site.held(transport).newest("held.inventory.task.*.01", TYPE) == {}
    assert list(await site.held(transport).newest(PATTERN, TYPE)) == [SUBJECT]


async def test_an_older_version_stored_again_does_not_come_back() -> None:
    site = Site()
    await site.write("approved")
    first = await site.value()
    await site.write("withdrawn", first)
    [old, _] = site.stored()
    # At once, while it still looks as if it had just been made, the number says that it is older; later the time does.
    site.plant(old.payload)
    assert await site.text() == "withdrawn"
    # Where the newer one is withheld, it has to be stored again within a minute of its making.
    for seconds, counts in ((60, "approved"), (61, "")):
        site = Site(now=NOW + seconds * SECOND)
        site.plant(old.payload)
        assert await site.text() == counts


async def test_of_two_versions_with_one_number_the_first_stored_counts() -> None:
    site = Site()
    site.plant(made(txt="first"))
    site.plant(made(txt="second"))
    assert await site.text() == "first"


async def test_of_two_writers_at_once_one_fails() -> None:
    site = Site()
    await site.write("first")
    before = await site.value()
    assert await site.write("here", before) == 2
    assert await site.write("there", before) is None
    assert await site.text() == "here"
    assert await site.write("anew") is None


async def test_what_no_reader_would_take_is_not_written() -> None:
    site = Site()
    before = None
    bad: list[Mapping[str, object]] = [
        {"subject": "held.planner.task.q.00"},
        {"subject": "held"},
        {"sealer": PLANNER},
        {"extra": b"x" * VALUE_BYTES},
        {"text": "x" * 2_049},
    ]
    for change in bad:
        with pytest.raises(SealError):
            await site.write(**{"text": "x", **change})  # type: ignore[arg-type]  # whichever they are
    large: list[dict[str, Value]] = [{"txt": b"x" * PAYLOAD_BYTES}, {"txt": ["x"] * (PAYLOAD_ITEMS + 1)}]
    for keys in large:
        with pytest.raises(SealError):
            await site.held().write(SUBJECT, keys, TYPE, OWN, before=before)
    await site.write("x")
    value = await site.value()
    with pytest.raises(SealError):
        await site.write("y", value, subject="held.inventory.task.q.01")
    assert len(site.stored()) == 1


async def test_as_much_as_is_said_can_be_held() -> None:
    site = Site()
    keys: dict[str, Value] = {"txt": "large", "all": [b"x" * 100] * PAYLOAD_ITEMS}
    stored = await site.held().write(SUBJECT, keys, TYPE, OWN, extra=b"x" * 300_000)
    assert stored is not None
    assert stored.last == 1
    assert await site.text() == "large"


async def test_bytes_without_the_form_of_a_value_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGERIES", 10)
    site = Site()
    for _ in range(100):
        site.plant(b"junk")
        # An older version, stored again when it was not made.
        site.plant(made(at=NOW - HOUR))
    assert await site.write("genuine", last=200) is not None
    for _ in range(100):
        site.plant(made(n=1))
    assert await site.text() == "genuine"


async def test_forgeries_under_one_subject_are_bounded_and_hide_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGERIES", 10)
    site = Site()
    forged, other = made(ISSUER.sealer(PLANNER.iss), n=2), "held.inventory.task.r.01"
    await site.write("genuine")
    await site.write("other", subject=other)
    for _ in range(9):
        site.plant(forged)
    assert list(await site.held().newest(PATTERN, TYPE)) == [SUBJECT]
    site.plant(forged)
    with pytest.raises(StateUnavailable, match=f"{SUBJECT}: over 10 values there are not genuine"):
        await site.held().newest(PATTERN, TYPE)
    assert list(await site.held().newest("held.inventory.>", TYPE, flooded=False)) == [other]
    # A genuine one that is behind them may be newer than the one before them: neither counts.
    assert await site.write("behind", last=12) is not None
    assert list(await site.held().newest("held.inventory.>", TYPE, flooded=False)) == [other]
    assert list(await site.held().newest("held.inventory.task.*.01", TYPE)) == [other]
    site.now += HOUR
    assert await site.held().standing(SUBJECT, TYPE, since=site.now) == (None, 0)


async def test_more_forged_subjects_than_are_counted_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGED_SUBJECTS", 2)
    site = Site()
    for number in range(5):
        subject = f"held.inventory.task.q{number}.00"
        site.plant(made(ISSUER.sealer(PLANNER.iss), sub=subject), subject)
    await site.write("genuine")
    assert await site.text() == "genuine"


async def test_what_does_not_verify_yet_is_waited_for_where_that_is_asked() -> None:
    site = Site()
    site.plant(made(ISSUER.sealer(PLANNER.iss)))
    assert await site.held().newest(PATTERN, TYPE) == {}
    with pytest.raises(StateUnavailable, match="a moment ago"):
        await site.held().newest(PATTERN, TYPE, fresh=True)
    # Junk can be no value, whatever its key.
    junk = "held.inventory.task.r.00"
    site.plant(b"junk", junk)
    assert await site.held().newest(junk, TYPE, fresh=True) == {}
    site.now += MINUTE
    assert await site.held().newest(PATTERN, TYPE, fresh=True) == {}


async def test_a_patient_reader_is_delayed_by_what_others_store_and_reads_all() -> None:
    site = Site()
    for _ in range(5_000):
        site.plant(b"junk")
    await site.write("genuine", last=5_000)
    with pytest.raises(BusUnavailable, match="was not read"):
        await site.held().newest(PATTERN, TYPE, within=0.005)
    found = await site.held().newest(PATTERN, TYPE, within=30.0, patient=True)
    assert found[SUBJECT].keys.text("txt") == "genuine"
    with pytest.raises(BusUnavailable, match="was not read"):
        await site.held(_Silent(site.broker)).newest(PATTERN, TYPE, within=0.01, patient=True)


class TestHeldSubject:
    """A reader that goes on where it was."""

    async def test_no_number_of_forgeries_hides_what_is_genuine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FORGERIES", 10)
        site = Site()
        following = site.held().following(SUBJECT, TYPE)
        assert await following.standing() == (None, 0)
        forged = made(ISSUER.sealer(PLANNER.iss), n=9)
        for _ in range(50):
            site.plant(forged)
        await site.write("genuine", last=50)
        value, last = await following.standing()
        assert value is not None
        assert (value.keys.text("txt"), last, value.last) == ("genuine", 51, 51)
        site.now += MINUTE
        for _ in range(50):
            site.plant(forged)
        value, last = await following.standing()
        assert value is not None
        # It can be read again: whoever reads it takes its keys out.
        assert (value.keys.text("txt"), last) == ("genuine", 101)

    async def test_a_reading_without_time_goes_on_with_the_next_one(self) -> None:
        site = Site()
        forged = made(ISSUER.sealer(PLANNER.iss), n=9)
        for _ in range(2_000):
            site.plant(forged)
        await site.write("genuine", last=2_000)
        verified: list[int] = []
        held = site.held()
        genuine = held.is_genuine

        async def counted(claimed: object, payload_type: str) -> bool:
            verified.append(1)
            return await genuine(claimed, payload_type)  # type: ignore[arg-type]

        held.is_genuine = counted  # type: ignore[method-assign]
        following = held.following(SUBJECT, TYPE)
        value, readings = None, 0
        # None has time for all.
        while value is None:
            readings += 1
            try:
                value, _ = await following.standing(within=0.02)
            except BusUnavailable:
                assert readings < 1_000
        assert value.keys.text("txt") == "genuine"
        assert readings > 1
        assert len(verified) == 2_001

    async def test_one_whose_key_comes_late_counts_then(self) -> None:
        site = Site(trust=FORMER_TRUST)
        site.plant(made())
        following = site.held().following(SUBJECT, TYPE)
        assert await following.standing() == (None, 1)
        site.trust = TRUST
        value, _ = await following.standing()
        assert value is not None

    async def test_it_begins_anew_with_a_stream_that_was_made_again(self) -> None:
        site = Site()
        following = site.held().following(SUBJECT, TYPE)
        first = await site.write("first")
        await site.write("second", await site.value())
        value, _ = await following.standing()
        assert first is not None
        assert value is not None
        assert value.number == 2
        site.now += MINUTE
        del site.broker.streams["HELD"]
        site.broker.add_stream("HELD", ["held.>"])
        await site.write("anew")
        value, last = await following.standing()
        assert value is not None
        assert (value.keys.text("txt"), value.number, last) == ("anew", 1, 1)

    async def test_what_is_too_old_stands_in_nothings_way(self) -> None:
        site = Site()
        following = site.held().following(SUBJECT, TYPE)
        await site.write("first")
        await site.write("second", await site.value())
        assert (await following.standing())[1] == 2
        site.now += MINUTE
        await site.write("lower", last=2)
        value, last = await following.standing(since=NOW)
        assert value is not None
        assert (value.number, last) == (2, 3)
        value, last = await following.standing(since=NOW + 1)
        assert value is not None
        assert (value.keys.text("txt"), value.number, last) == ("lower", 1, 3)
        site.now += HOUR
        assert await following.standing(since=site.now) == (None, 3)


async def test_only_versions_since_a_time_are_looked_at() -> None:
    site = Site()
    await site.write("first")
    site.now += MINUTE
    assert await site.held().newest(PATTERN, TYPE, since=NOW + 1) == {}
    assert list(await site.held().newest(PATTERN, TYPE, since=NOW)) == [SUBJECT]


async def test_a_key_that_is_gone_counts_by_the_past_alone() -> None:
    former = FORMER.sealer(INVENTORY)
    site = Site(trust=FORMER_TRUST)
    await site.write("genuine", sealer=former)
    assert await site.text() == "genuine"
    # The key has left the bundle.
    site.trust = TRUST
    assert await site.text() == ""
    site.past = past = Past(FORMER_TRUST)
    assert await site.text() == "genuine"
    assert past.asked == [NOW]
    site.past = Past(TRUST, FORMER_TRUST)
    assert await site.text() == "genuine"
    site.past = Past(TRUST)
    assert await site.text() == ""
    site.past = Past(error=StateUnavailable("no key book"))
    with pytest.raises(StateUnavailable, match="no key book"):
        await site.value()


async def test_the_past_is_not_asked_about_what_it_cannot_change() -> None:
    site = Site(past=Past(error=StateUnavailable("no key book")))
    await site.write("first")
    await site.write("second", await site.value())
    site.plant(b"junk")
    # Made by others, but not over what counts: whether it is genuine does not matter.
    site.plant(made(FORMER.sealer(INVENTORY), n=2))
    assert await site.text() == "second"
    site.plant(made(FORMER.sealer(INVENTORY), n=3))
    with pytest.raises(StateUnavailable):
        await site.value()


async def test_a_broker_that_is_silent_is_not_waited_for() -> None:
    site = Site()
    with pytest.raises(BusUnavailable, match=r"HELD was not read within 0 s"):
        await site.held(_Silent(site.broker)).newest(PATTERN, TYPE, within=0)
    del site.broker.streams["HELD"]
    with pytest.raises(ConfigurationError, match="stream HELD does not exist"):
        await site.value()
    with pytest.raises(BusUnavailable):
        await site.write("x")


class _Silent(MemoryTransport):
    async def read(self, stream: str, subjects: Sequence[str], **more: object):  # type: ignore[no-untyped-def]  # never ends
        await asyncio.Event().wait()
        yield []


class Earlier:
    """The trust of earlier times, or none that is known."""

    def __init__(self, *trusts: Trust) -> None:
        self._trusts = trusts

    async def at(self, time: int) -> Sequence[Trust]:
        if not self._trusts:
            raise StateUnavailable("no key book")
        return self._trusts


async def test_an_earlier_trust_counts_for_an_unknown_key_alone() -> None:
    current, earlier = Trust(bundles=TrustBundles([])), Trust(bundles=TrustBundles([]))
    asked: list[Trust] = []

    def verify(trust: Trust) -> str:
        asked.append(trust)
        if trust is current:
            raise EnvelopeError(code, 7)
        return "verified"

    code = Code.UNKNOWN_KEY
    assert await verified_then(verify, NOW, trust=current, past=Earlier(current, earlier)) == "verified"
    assert [trust is earlier for trust in asked] == [False, False, True]
    for needed, error in ((True, StateUnavailable), (False, EnvelopeError)):
        with pytest.raises(error):
            await verified_then(verify, NOW, trust=current, past=Earlier(), needed=needed)
    code = Code.BAD_SIGNATURE
    with pytest.raises(EnvelopeError):
        await verified_then(verify, NOW, trust=current, past=Earlier(earlier))
    assert asked[-1] is current


# Cells


class Cell(MemoryTransport):
    """A cell that answers once `asked` were, and has the values of `tokens`; `cells` are all by name."""

    cells: Mapping[str, Cell]

    def __init__(self, broker: MemoryBroker, *tokens: str, asked: asyncio.Barrier | None = None) -> None:
        super().__init__(broker)
        self.tokens = tokens
        self.asked = asked

    def cells_of(self, pattern: str) -> Mapping[str, Transport]:
        token = pattern.split(".")[1]
        return {name: cell for name, cell in self.cells.items() if token == "*" or token in cell.tokens}

    async def values(
        self, stream: str, pattern: str, *, since: int = 0
    ) -> AsyncGenerator[Sequence[tuple[str, StoredValue]], None]:
        if self.asked is not None:
            await self.asked.wait()
        async for batch in super().values(stream, pattern, since=since):
            yield batch


def two_cells(first: Cell, east: Cell) -> Cell:
    first.cells = east.cells = {"default": first, "east": east}
    return first


async def test_all_cells_are_read_at_once_each_for_its_own_agents() -> None:
    first, east, both = Site(), Site(), asyncio.Barrier(2)
    await east.write("east", subject="held.planner.task.q.00", sealer=PLANNER)
    # The inventory is in the first cell: what is stored for it in another does not count.
    await east.write("forgotten", subject="held.inventory.task.q.01")
    await first.write("first")
    held = first.held(two_cells(Cell(first.broker, "inventory", asked=both), Cell(east.broker, "planner", asked=both)))
    found = await held.newest("held.*.task.q.*", TYPE)
    assert {subject: (value.keys.text("txt"), value.last) for subject, value in found.items()} == {
        SUBJECT: ("first", 1),
        "held.planner.task.q.00": ("east", 1),
    }


async def test_a_cell_that_cannot_be_read_is_named() -> None:
    site = Site()
    never = asyncio.Barrier(2)
    slow = two_cells(Cell(site.broker, "inventory"), Cell(site.broker, "planner", asked=never))
    with pytest.raises(BusUnavailable, match=r"cell east: HELD was not read within 0\.01 s"):
        await site.held(slow).newest("held.*.task.q.*", TYPE, within=0.01)
    bare = two_cells(Cell(site.broker, "inventory"), Cell(MemoryBroker(lambda: NOW), "planner"))
    with pytest.raises(ConfigurationError, match=r"cell east: .*HELD"):
        await site.held(bare).newest("held.*.task.q.*", TYPE)
    with pytest.raises(BusUnavailable, match="cell west: there is no such cell now"):
        await site.held(slow).scan("held.*.task.q.*", most=1, cell="west")


async def test_a_moved_owner_goes_on_from_what_it_had_in_the_cell_before() -> None:
    present, before = Site(), Site()
    held = present.held(two_cells(Cell(present.broker, "inventory"), Cell(before.broker, "inventory")))
    await before.write("first")
    # Whoever knows of nothing there is too late, as in the cell before.
    assert await held.write(SUBJECT, {"txt": "another first"}, TYPE, OWN) is None
    value, last = await held.standing(SUBJECT, TYPE)
    assert value is not None
    assert (value.number, value.keys.text("txt"), last) == (1, "first", 0)
    present.broker.inject(SUBJECT, b"bytes of others")
    written = await held.write(SUBJECT, {"txt": "second"}, TYPE, OWN, before=value)
    assert written is not None
    assert (written.number, written.last) == (2, 2)
    assert await held.write(SUBJECT, {"txt": "late"}, TYPE, OWN, before=value) is None
    [(_, counts)] = (await held.newest(PATTERN, TYPE)).items()
    assert (counts.number, counts.keys.text("txt"), counts.last) == (2, "second", 2)
    # Where it has nothing, its first version is one.
    other = SUBJECT[:-2] + "07"
    assert (first := await held.write(other, {"txt": "first"}, TYPE, OWN)) is not None
    assert first.number == 1


async def test_of_one_number_in_two_cells_the_one_before_counts() -> None:
    present, before = Site(), Site()
    for site, text in ((before, "before"), (present, "present")):
        await site.write(text)
    held = present.held(two_cells(Cell(present.broker, "inventory"), Cell(before.broker, "inventory")))
    [value] = (await held.newest(PATTERN, TYPE)).values()
    assert (value.keys.text("txt"), value.last) == ("before", 1)


async def test_forgeries_in_one_cell_bring_back_no_version_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGERIES", 3)
    present, before = Site(), Site()
    await before.write("first")
    for _ in range(3):
        present.plant(made(ISSUER.sealer(PLANNER.iss), n=2))
    held = present.held(two_cells(Cell(present.broker, "inventory"), Cell(before.broker, "inventory")))
    assert await held.newest(PATTERN, TYPE, flooded=False) == {}
    with pytest.raises(StateUnavailable):
        await held.newest(PATTERN, TYPE)
