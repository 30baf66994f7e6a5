"""Tokens that the edge keeps for the exit: found by whose they are, by who has the key, for as long as they live."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.edge.oauth.tokens.kept_tokens import KeptTokens, Owner
from sealbus.bus.ports import StoredValue
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
KEY = bytes(range(32))
TOKEN = "header.payload.signature-that-nobody-may-see"
ALICE = Owner("https://idp.example", "alice", "shop-web", "s-1")


class Site:
    """A broker, and processes that have the key."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(lambda: NOW)
        self.broker.add_stream("STATE", ["state.>"])

    def process(self, key: bytes = KEY, edge: str = "edge") -> KeptTokens:
        return KeptTokens(key, self.keyed(), edge=edge)

    def keyed(self) -> KeyValue:
        return KeyValue(self.broker.connect())

    @property
    def stored(self) -> list[tuple[str, bytes]]:
        return [(one.subject, one.payload) for one in self.broker.streams["STATE"].stored]


async def keep(process: KeptTokens, token: str = TOKEN, owner: Owner = ALICE, *, life: int = 600 * SECOND) -> None:
    await process.keep(token, owner, expires=NOW + life, now=NOW)


async def test_another_process_finds_the_last_token_of_a_user() -> None:
    site = Site()
    await keep(site.process())
    await keep(site.process(), "a-newer-one")
    assert await site.process().find_token(ALICE, now=NOW) == "a-newer-one"
    assert len({subject for subject, _ in site.stored}) == 1


@pytest.mark.parametrize(
    "other",
    [
        ALICE._replace(issuer="https://other.example"),
        ALICE._replace(user="bob"),
        ALICE._replace(client="other"),
        *(ALICE._replace(session=other) for other in ("s-2", "s-11", "s-", "S-1")),
        Owner("https://idp.examplea", "lice", "shop-web", "s-1"),
    ],
)
async def test_nobody_else_has_it(other: Owner) -> None:
    site = Site()
    await keep(site.process())
    assert await site.process().find_token(other, now=NOW) is None


async def test_a_user_fills_no_stream() -> None:
    site = Site()
    process = site.process()
    many = [ALICE._replace(session=f"s-{number}") for number in range(20)]
    for owner in many:
        await keep(process, f"{TOKEN}-{owner.session}", owner)
    assert len({subject for subject, _ in site.stored}) == 1
    found = [await site.process().find_token(owner, now=NOW) for owner in many[-8:]]
    assert found == [f"{TOKEN}-{owner.session}" for owner in many[-8:]]
    assert max(len(value) for _, value in site.stored) < 9 * (len(TOKEN) + 40)


async def test_a_session_that_is_used_again_does_not_give_way() -> None:
    site = Site()
    process = site.process()
    await keep(process)
    for number in range(7):
        await keep(process, owner=ALICE._replace(session=f"other-{number}"))
        await keep(process, f"{TOKEN}-{number}")
    await keep(process, owner=ALICE._replace(session="one-more"))
    assert await site.process().find_token(ALICE, now=NOW) == f"{TOKEN}-6"
    assert await site.process().find_token(ALICE._replace(session="other-0"), now=NOW) is None


async def test_what_has_ended_gives_way() -> None:
    site = Site()
    await keep(site.process(), "x" * 4_000, life=SECOND)
    await site.process().keep(TOKEN, ALICE._replace(session="s-2"), expires=NOW + 600 * SECOND, now=NOW + SECOND)
    assert [len(value) < 200 for _, value in site.stored] == [False, True]


async def test_a_token_that_comes_again_takes_the_place_of_one_that_came_between() -> None:
    site = Site()
    process = site.process()
    await keep(process)
    await keep(process, "a-shorter-one", life=SECOND)
    await keep(process)
    assert await site.process().find_token(ALICE, now=NOW + SECOND) == TOKEN


async def test_it_ends_with_its_time() -> None:
    site = Site()
    await keep(site.process(), life=SECOND)
    assert await site.process().find_token(ALICE, now=NOW + SECOND - 1) == TOKEN
    assert await site.process().find_token(ALICE, now=NOW + SECOND) is None


async def test_who_reads_the_stream_reads_no_token_and_no_name() -> None:
    site = Site()
    process = site.process()
    await keep(process)
    await keep(site.process(), owner=ALICE._replace(user="bob"))
    for subject, payload in site.stored:
        assert subject.startswith("state.edge.token.")
        for part in (*TOKEN.split("."), *ALICE, "bob"):
            assert part not in subject
            assert part.encode() not in payload
    assert TOKEN not in repr(process)
    assert len({payload for _, payload in site.stored}) == 2


@pytest.mark.parametrize("process", [lambda site: site.process(bytes(32)), lambda site: site.process(edge="edge2")])
async def test_who_has_another_key_or_asks_another_edge_finds_nothing(process: Callable[[Site], KeptTokens]) -> None:
    site = Site()
    await keep(site.process())
    assert await process(site).find_token(ALICE, now=NOW) is None


async def test_a_value_counts_only_in_its_place() -> None:
    site = Site()
    bob = ALICE._replace(user="bob")
    await keep(site.process())
    await keep(site.process(), "bobs", bob)
    (_, alices), (place, _) = site.stored
    site.broker.inject(place, alices)
    assert await site.process().find_token(bob, now=NOW) is None


@pytest.mark.parametrize("part", ["nonce", "content", "tag", "cut", "empty"])
async def test_a_changed_value_is_none(part: str) -> None:
    site = Site()
    await keep(site.process())
    [(place, value)] = site.stored
    at = {"nonce": 0, "content": 14, "tag": len(value) - 1}.get(part)
    changed = {"cut": value[:-1], "empty": b""}.get(part, value)
    if at is not None:
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
    site.broker.inject(place, changed)
    assert await site.process().find_token(ALICE, now=NOW) is None
    await keep(site.process())
    assert await site.process().find_token(ALICE, now=NOW) == TOKEN


async def test_it_is_written_once_for_each_process_and_token() -> None:
    site = Site()
    process = site.process()
    for _ in range(3):
        await keep(process)
    assert len(site.stored) == 1
    await process.keep(TOKEN, ALICE, expires=NOW + 1_200 * SECOND, now=NOW + 600 * SECOND)
    assert len(site.stored) == 2


async def test_the_last_token_alone_is_not_written_again() -> None:
    site = Site()
    process = site.process()
    await keep(process)
    await keep(process, "another")
    await keep(process, "another")
    assert len(site.stored) == 2
    await keep(process)
    assert len(site.stored) == 3


async def test_two_processes_at_the_same_moment() -> None:
    site = Site()
    second = site.process()

    class Overtaken(KeyValue):
        """Lets the other process write between the first read and what follows from it."""

        reads = 0

        async def get(self, subject: str, *, within: float = 5.0) -> StoredValue | None:
            found = await super().get(subject, within=within)
            self.reads += 1
            if self.reads == 1:
                await keep(second, "the-others")
            return found

    await keep(KeptTokens(KEY, Overtaken(site.broker.connect()), edge="edge"))
    assert await site.process().find_token(ALICE, now=NOW) == TOKEN
    assert len(site.stored) == 2


async def test_a_token_that_cannot_be_kept_is_not_thought_to_be() -> None:
    site = Site()
    process = site.process()
    site.broker.fail("STATE", BusUnavailable("down"))
    with pytest.raises(BusUnavailable):
        await keep(process)
    site.broker.fail("STATE", None)
    await keep(process)
    assert await site.process().find_token(ALICE, now=NOW) == TOKEN


async def test_others_that_write_all_the_time() -> None:
    site = Site()
    other = site.process()

    class Contested(KeyValue):
        """Lets the other process write after each read."""

        reads = 0

        async def get(self, subject: str, *, within: float = 5.0) -> StoredValue | None:
            found = await super().get(subject, within=within)
            self.reads += 1
            await keep(other, f"the-others-{self.reads}")
            return found

    with pytest.raises(BusUnavailable, match="other processes keep writing"):
        await keep(KeptTokens(KEY, Contested(site.broker.connect()), edge="edge"))


async def test_a_replica_that_is_behind() -> None:
    site = Site()
    await keep(site.process(), owner=ALICE._replace(session="s-0"))
    [(place, _)] = site.stored
    answers = [await site.keyed().get(place), None]
    await keep(site.process())

    class Behind(KeyValue):
        async def get(self, subject: str, *, within: float = 5.0) -> StoredValue | None:
            return answers.pop() if answers else await super().get(subject, within=within)

    process = KeptTokens(KEY, Behind(site.broker.connect()), edge="edge")
    assert await process.find_token(ALICE, now=NOW) == TOKEN
    assert not answers
