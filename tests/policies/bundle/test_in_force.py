from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.policies import bundle, eventually, put

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import BundleFile, InForce
from sealbus.policies.lint.module import PolicyRefused

PRICING = SpiffeId("spiffe://example.org/agent/pricing")


def revoking(time: int) -> Bundle:
    return bundle(data={"sealbus": {"registry": {"issued_before": {str(PRICING): time}}}}, revision=f"r{time}")


async def test_each_bundle_is_taken_once_with_its_revocations() -> None:
    in_force, first, second = InForce(), list[str](), list[str]()
    assert (in_force.bundle, in_force.revoked_before) == (None, {})
    async with in_force.taken(lambda one: first.append(one.revision)):
        assert await in_force.put(revoking(5))
        assert in_force.revoked_before == {PRICING: 5}
        assert not await in_force.put(revoking(5))
        assert await in_force.put(bundle())
        assert in_force.revoked_before == {}
    assert await in_force.put(revoking(7))
    async with in_force.taken(lambda one: second.append(one.revision)):
        assert await in_force.put(revoking(9))
    assert (first, second) == (["r5", "r1"], ["r7", "r9"])


async def test_what_something_refuses_to_take_is_not_in_force() -> None:
    in_force = InForce()

    def take(one: Bundle) -> None:
        if one.revision == "r9":
            raise PolicyRefused([])

    async with in_force.taken(take):
        await in_force.put(revoking(5))
        with pytest.raises(PolicyRefused):
            await in_force.put(revoking(9))
    assert (in_force.bundle, in_force.revoked_before) == (revoking(5), {PRICING: 5})


async def test_of_two_neither_decides_by_what_the_other_refuses() -> None:
    in_force, taken = InForce(), list[str]()

    def refuse(one: Bundle) -> None:
        raise PolicyRefused([])

    async with in_force.taken(lambda one: taken.append(one.revision)):
        with pytest.raises(RuntimeError, match="already has a taker"):
            async with in_force.taken(refuse):
                pass
        assert await in_force.put(revoking(5))
    assert (taken, in_force.revoked_before) == (["r5"], {PRICING: 5})


class Slow:
    """Takes each bundle once it is let, as an engine that compiles in many turns does."""

    def __init__(self) -> None:
        self.decides = ""
        self.began: list[str] = []
        self.let = asyncio.Semaphore(0)

    async def take(self, bundle: Bundle) -> None:
        self.began.append(bundle.revision)
        async with asyncio.timeout(60):
            await self.let.acquire()
        if bundle.revision == "r9":
            raise PolicyRefused([])
        self.decides = bundle.revision


def seen(slow: Slow, in_force: InForce) -> tuple[str, int]:
    return slow.decides, in_force.revoked_before.get(PRICING, 0)


async def test_all_that_is_in_force_changes_in_one_turn() -> None:
    in_force, slow = InForce(), Slow()
    slow.let.release()
    async with in_force.taken(slow.take):
        await in_force.put(revoking(5))
        found = {seen(slow, in_force)}
        putting = asyncio.create_task(in_force.put(revoking(7)))
        for turn in range(20):
            await asyncio.sleep(0)
            found.add(seen(slow, in_force))
            if turn == 10:
                slow.let.release()
        assert await putting
    assert found == {("r5", 5), ("r7", 7)}


async def test_bundles_are_taken_in_order_and_a_refused_one_leaves_the_others() -> None:
    in_force, slow = InForce(), Slow()
    slow.let.release()
    async with in_force.taken(slow.take):
        await in_force.put(revoking(5))
        putting = [asyncio.create_task(in_force.put(revoking(time))) for time in (7, 9, 8)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert slow.began == ["r5", "r7"]
        slow.let.release()
        slow.let.release()
        with pytest.raises(PolicyRefused):
            await putting[1]
        assert seen(slow, in_force) == ("r7", 7)
        slow.let.release()
        assert await putting[2]
    assert slow.began == ["r5", "r7", "r9", "r8"]
    assert (seen(slow, in_force), in_force.bundle) == (("r8", 8), revoking(8))


async def test_leaving_waits_for_what_is_being_taken() -> None:
    in_force, slow = InForce(), Slow()
    async with in_force.taken(slow.take):
        putting = asyncio.create_task(in_force.put(revoking(5)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(slow.let.release)
    assert slow.decides == "r5"
    await putting
    assert await in_force.put(revoking(7))
    assert slow.began == ["r5"]


async def test_a_file_is_followed_and_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    file = BundleFile(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await file.start()
    put(revoking(5).raw, path)
    await file.start()
    assert file.in_force.revoked_before == {PRICING: 5}
    following = asyncio.create_task(file.run())

    async def refused() -> bool:
        return file.in_force.problem != ""

    async def revoked() -> bool:
        return file.in_force.revoked_before == {PRICING: 9}

    try:
        for bad in (b"junk", bundle(data={"sealbus": {"registry": {"issued_before": {"x": 1}}}}).raw):
            put(bad, path)
            await eventually(refused)
            assert file.in_force.revoked_before == {PRICING: 5}
            # The one in force again is no other one, and nothing is wrong any more.
            put(revoking(5).raw, path)

            async def well() -> bool:
                return not await refused()

            await eventually(well)
        put(revoking(9).raw, path)
        await eventually(revoked)
    finally:
        following.cancel()
        await asyncio.wait({following})
