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


def test_each_bundle_is_taken_once_with_its_revocations() -> None:
    in_force, first, second = InForce(), list[str](), list[str]()
    assert (in_force.bundle, in_force.revoked_before) == (None, {})
    with in_force.taken(lambda one: first.append(one.revision)):
        assert in_force.put(revoking(5))
        assert in_force.revoked_before == {PRICING: 5}
        assert not in_force.put(revoking(5))
        assert in_force.put(bundle())
        assert in_force.revoked_before == {}
    assert in_force.put(revoking(7))
    with in_force.taken(lambda one: second.append(one.revision)):
        assert in_force.put(revoking(9))
    assert (first, second) == (["r5", "r1"], ["r7", "r9"])


def test_what_something_refuses_to_take_is_not_in_force() -> None:
    in_force = InForce()

    def take(one: Bundle) -> None:
        if one.revision == "r9":
            raise PolicyRefused([])

    with in_force.taken(take):
        in_force.put(revoking(5))
        with pytest.raises(PolicyRefused):
            in_force.put(revoking(9))
    assert (in_force.bundle, in_force.revoked_before) == (revoking(5), {PRICING: 5})


def test_of_two_neither_decides_by_what_the_other_refuses() -> None:
    in_force, taken = InForce(), list[str]()

    def refuse(one: Bundle) -> None:
        raise PolicyRefused([])

    with in_force.taken(lambda one: taken.append(one.revision)):
        with pytest.raises(RuntimeError, match="something else takes"), in_force.taken(refuse):
            pass
        assert in_force.put(revoking(5))
    assert (taken, in_force.revoked_before) == (["r5"], {PRICING: 5})


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
