"""Bounded memories (SPEC.md section 4, and steps 6 and 13 of section 7)."""

from __future__ import annotations

import pytest
from support.envelopes import agent, message_id, signing_key

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.trust.caches import BoundedMap, Caches, ReplayMemory, VerifiedRoots

ISS = agent("planner")


def test_memories_hold_at_least_one() -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            ReplayMemory(number)


def test_a_verified_root_is_known_by_all_of_its_parts() -> None:
    roots = VerifiedRoots(8)
    key, other = signing_key("a").public, signing_key("b").public
    roots.remember("type", key, b"root", 1, b"signature")
    assert roots.knows("type", key, b"root", 1, b"signature")
    assert not roots.knows("other", key, b"root", 1, b"signature")
    assert not roots.knows("type", other, b"root", 1, b"signature")
    assert not roots.knows("type", key, b"other", 1, b"signature")
    assert not roots.knows("type", key, b"root", 2, b"signature")
    assert not roots.knows("type", key, b"root", 1, b"other")


def test_verified_roots_are_bounded() -> None:
    roots = VerifiedRoots(2)
    key = signing_key("a").public
    for size in range(1, 10):
        roots.remember("type", key, b"root", size, b"signature")
    assert len(roots) == 2
    assert roots.knows("type", key, b"root", 9, b"signature")
    assert not roots.knows("type", key, b"root", 7, b"signature")


def test_caches_are_separate_and_of_one_process() -> None:
    first, second = Caches(), Caches()
    first.credentials.put(b"key", "value")
    assert second.credentials.get(b"key") is None
    assert first.contexts.get(b"key") is None
    assert first.links.get(b"key") is None
    assert len(first.roots) == 0


def replayed(memory: ReplayMemory, number: int, now: int) -> tuple[Code, int]:
    with pytest.raises(EnvelopeError) as caught:
        memory.check((ISS, message_id(number)), now=now)
    return caught.value.code, caught.value.step


def test_step_6_what_was_remembered_is_replayed_until_it_expires() -> None:
    memory = ReplayMemory(10)
    one = (ISS, message_id(1))
    memory.check(one, now=0)
    assert not memory.seen(one, now=0)
    memory.remember(one, 100, now=0)
    assert memory.seen(one, now=99)
    assert replayed(memory, 1, 99) == (Code.REPLAYED, 6)
    # At `exp` it is refused at step 5 anyhow.
    assert not memory.seen(one, now=100)
    assert len(memory) == 0
    memory.check(one, now=100)


def test_step_13_what_is_there_by_now_is_replayed() -> None:
    memory = ReplayMemory(10)
    memory.remember((ISS, message_id(1)), 100, now=0)
    with pytest.raises(EnvelopeError) as caught:
        memory.remember((ISS, message_id(1)), 100, now=1)
    assert (caught.value.code, caught.value.step) == (Code.REPLAYED, 13)
    memory.remember((ISS, message_id(1)), 200, now=100)
    assert memory.seen((ISS, message_id(1)), now=150)


def test_step_6_ids_are_each_senders_own() -> None:
    memory = ReplayMemory(10)
    memory.remember((ISS, message_id(1)), 100, now=0)
    memory.check((agent("other"), message_id(1)), now=0)
    memory.check((ISS, message_id(2)), now=0)
    memory.remember((agent("other"), message_id(1)), 100, now=0)
    assert len(memory) == 2


def test_step_6_full_memory_refuses_and_never_forgets() -> None:
    memory = ReplayMemory(2)
    memory.remember((ISS, message_id(1)), 100, now=0)
    memory.remember((ISS, message_id(2)), 50, now=0)
    assert replayed(memory, 3, 49) == (Code.OVERLOADED, 6)
    with pytest.raises(EnvelopeError) as caught:
        memory.remember((ISS, message_id(3)), 100, now=49)
    assert (caught.value.code, caught.value.step) == (Code.OVERLOADED, 6)
    assert replayed(memory, 1, 49) == (Code.REPLAYED, 6)
    assert replayed(memory, 2, 49) == (Code.REPLAYED, 6)
    memory.remember((ISS, message_id(3)), 100, now=50)  # one has expired and makes room
    assert replayed(memory, 1, 50) == (Code.REPLAYED, 6)
    assert len(memory) == 2


def test_expired_entries_leave_in_any_order_of_arrival() -> None:
    memory = ReplayMemory(1000)
    lives = [(number * 7919) % 1000 + 1 for number in range(1000)]
    for number, until in enumerate(lives):
        memory.remember((ISS, message_id(number)), until, now=0)
    for now in (1, 10, 500, 999, 1000):
        assert not memory.seen((ISS, message_id(5000)), now=now)
        assert len(memory) == sum(until > now for until in lives)


def test_what_a_map_is_told_to_forget_leaves_room() -> None:
    kept: BoundedMap[str, int] = BoundedMap(2)
    kept.put("a", 1)
    kept.put("b", 2)
    kept.forget("a")
    kept.forget("never there")
    kept.put("c", 3)
    assert [kept.get(name) for name in "abc"] == [None, 2, 3]
