from __future__ import annotations

from sealbus.agents.dev.idp.signing import Expiring
from sealbus.envelopes.limits import SECOND


def test_what_is_taken_is_gone() -> None:
    store: Expiring[int] = Expiring(seconds=60, most=10, clock=lambda: 0)
    store.put("a", 1)
    assert [store.get("a"), store.get("a"), store.take("a"), store.take("a"), store.get("a")] == [1, 1, 1, None, None]


def test_what_is_too_old_is_gone() -> None:
    now = 0
    store: Expiring[int] = Expiring(seconds=60, most=10, clock=lambda: now)
    store.put("a", 1)
    now = 30 * SECOND
    store.put("b", 2)
    now = 60 * SECOND - 1
    assert list(store.values()) == [1, 2]
    now = 60 * SECOND
    assert (store.get("a"), store.take("a"), len(store), list(store.values())) == (None, None, 1, [2])


def test_the_oldest_gives_way() -> None:
    store: Expiring[int] = Expiring(seconds=60, most=3, clock=lambda: 0)
    for number in range(1_000):
        store.put(str(number), number)
    assert list(store.values()) == [997, 998, 999]
