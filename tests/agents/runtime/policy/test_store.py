"""The store of policies on a real server: current bundles, former ones, and two who push at a time."""

from __future__ import annotations

import pytest

from sealbus.agents.runtime.policy import store as policy_store
from sealbus.agents.runtime.policy.store import PolicyStore, StoredPart
from sealbus.envelopes.errors import ConfigurationError

pytestmark = pytest.mark.nats


async def pushed(store: PolicyStore, name: str, raw: bytes, serial: int) -> StoredPart:
    before = await store.read(name)
    await store.push(name, raw, serial, last=before.last if before is not None else 0)
    found = await store.read(name)
    assert found is not None
    return found


async def test_the_newest_is_current_and_those_before_are_kept(store: PolicyStore) -> None:
    assert await store.current() == {}
    assert await store.read("stock") is None
    await pushed(store, "platform", b"p", 1)
    for serial in (9, 10, 11):
        await pushed(store, "stock", b"%d" % serial, serial)
    assert {name: part.raw for name, part in (await store.current()).items()} == {"platform": b"p", "stock": b"11"}
    assert await store.serials("stock") == [9, 10, 11]
    assert await store.former("stock", 9) == b"9"
    with pytest.raises(ConfigurationError, match="serial 3 is not kept; there are 9, 10, 11"):
        await store.former("stock", 3)
    with pytest.raises(ConfigurationError, match="there are none"):
        await store.former("other", 1)


async def test_of_two_who_push_one_is_told(store: PolicyStore) -> None:
    first = await pushed(store, "stock", b"1", 1)
    await store.push("stock", b"2", 2, last=first.last)
    with pytest.raises(ConfigurationError, match="another push came first"):
        await store.push("stock", b"3", 3, last=first.last)
    found = await store.read("stock")
    assert found is not None
    assert found.raw == b"2"


async def test_only_so_many_are_kept(store: PolicyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_store, "KEPT", 2)
    for serial in range(1, 5):
        await pushed(store, "stock", b"%d" % serial, serial)
    assert await store.serials("stock") == [3, 4]


async def test_one_that_is_broken_in_the_store(store: PolicyStore) -> None:
    await pushed(store, "stock", b"1", 1)
    info = await store.objects.info("stock")
    assert info is not None
    await store.objects._purge(f"$O.policies.C.{info.nuid}")
    broken = await store.read("stock")
    assert broken == StoredPart(name="stock", raw=b"", last=info.sequence)
    # It stands in nobody's way: not in that of its own team.
    assert (await pushed(store, "stock", b"2", 2)).raw == b"2"
