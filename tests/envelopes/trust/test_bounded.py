"""A map of bounded size."""

from __future__ import annotations

import pytest

from sealbus.envelopes.trust.caches import BoundedMap


def test_a_map_forgets_the_least_recently_used() -> None:
    cache: BoundedMap[str, int] = BoundedMap(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1  # now "b" is the older one
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.put("a", 4)  # as does writing it again
    cache.put("d", 5)
    assert (cache.get("a"), cache.get("c"), cache.get("d")) == (4, None, 5)
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0
    assert cache.get("a") is None


def test_a_map_holds_at_least_one() -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            BoundedMap(number)
    BoundedMap[str, int](1).put("a", 1)
