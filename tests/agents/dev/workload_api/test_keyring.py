"""A key is trusted before it signs, and after it has signed until somebody ends that."""

from __future__ import annotations

import pytest

from sealbus.agents.dev.workload_api.jwt_keys import KeyRing


def test_a_key_goes_from_prepared_to_current_to_old_to_gone() -> None:
    ring = KeyRing("a")
    assert (ring.current, ring.prepared, ring.old, ring.trusted) == ("a", None, (), ("a",))
    ring.prepare("b")
    assert (ring.current, ring.prepared, ring.trusted) == ("a", "b", ("a", "b"))
    ring.activate()
    assert (ring.current, ring.prepared, ring.old, ring.trusted) == ("b", None, ("a",), ("b", "a"))
    ring.prepare("c")
    ring.activate()
    assert (ring.current, ring.old) == ("c", ("b", "a"))
    ring.prune()
    assert (ring.current, ring.old, ring.trusted) == ("c", (), ("c",))


def test_no_key_signs_that_was_not_trusted_before() -> None:
    ring = KeyRing("a")
    with pytest.raises(ValueError, match="no key is prepared"):
        ring.activate()
    assert ring.current == "a"


def test_a_prepared_key_is_not_replaced_unseen() -> None:
    ring = KeyRing("a", prepared="b", old=("z",))
    with pytest.raises(ValueError, match="prepared already"):
        ring.prepare("c")
    assert list(ring.trusted) == ["a", "b", "z"]
    ring.prune()
    assert list(ring.trusted) == ["a", "b"]
