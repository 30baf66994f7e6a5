"""Rotation again and again: short-lived SVIDs, keys that change under them, and nothing that ever stops working."""

from __future__ import annotations

import asyncio

import pytest
from support.scripted_workload_api import scripted_workload_api
from support.workload_api import MovedClock, workload_api

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.identity import WorkloadIdentity
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import ClaimedKey, verify_credential

pytestmark = pytest.mark.workload_api

DEADLINE = 60.0
X509_TTL, JWT_TTL, STEP = 10, 60, 5


async def refreshed(identity: WorkloadIdentity, clock: MovedClock) -> None:
    """Wait until no refresh is due: nobody but tests waits for a credential, so there is no event for it."""
    async with asyncio.timeout(DEADLINE):
        while clock() >= identity.status().jwt_issued + JWT_TTL // 2 * SECOND:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def check(identity: WorkloadIdentity, now: int) -> bytes:
    """Everything in use is good, by the rules of those who will read it; return the credential's token."""
    sealer = identity.sealer()
    says = verify_credential(
        sealer.credential,
        ClaimedKey(identity.spiffe_id, sealer.key.public, sealer.crd),
        reference=now,
        trust=Trust(bundles=identity.bundles()),
        caches=Caches(),
    )
    assert says.exp - now >= 20 * SECOND
    assert identity.x509().not_after - now > X509_TTL // 2 * SECOND
    return sealer.credential.token


async def test_five_minutes_of_rotation(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """X.509-SVIDs of 10 s and JWT-SVIDs of 60 s, in steps of five seconds by a clock that is moved.

    The JWT key and the CA change meanwhile, each with its overlap. At each step all is usable, and a JWT-SVID never has
    less than 20 s to live.
    """
    counters = Counters()
    async with (
        scripted_workload_api(authority, x509_ttl=X509_TTL, jwt_ttl=JWT_TTL) as scripted,
        WorkloadIdentity.connect(scripted.address, clock=clock, counters=counters, deadline=60) as identity,
    ):
        rotated = asyncio.Event()
        identity.on_rotation(rotated.set)
        changes = {
            10: authority.prepare_jwt,
            15: authority.activate_jwt,
            20: authority.prepare_x509,
            30: authority.activate_x509,
            35: authority.prune_x509,
            40: authority.prune_jwt,
        }
        leaves, tokens = {identity.x509().chain[0]}, {check(identity, clock())}
        for step in range(60):
            clock.advance(STEP)
            changes.get(step, scripted.identity.touch)()
            while identity.x509().chain[0] in leaves:
                async with asyncio.timeout(DEADLINE):
                    await rotated.wait()
                rotated.clear()
            await refreshed(identity, clock)
            tokens.add(check(identity, clock()))
            leaves.add(identity.x509().chain[0])
        assert len(leaves) == 61
        assert 9 <= len(tokens) <= 11
        assert {len(audience) for audience in scripted.audiences} == {1}
        assert counters.value("sealbus_identity_failures_total") == 0
        assert counters.value("sealbus_identity_updates_total", source="jwt_bundles") == 4


@pytest.mark.slow
async def test_a_refresh_needs_no_wake(authority: DevelopmentAuthority, clock: MovedClock) -> None:
    """Nothing arrives, and yet the JWT-SVID is replaced when its half life comes."""
    async with (
        scripted_workload_api(authority, jwt_ttl=JWT_TTL) as scripted,
        WorkloadIdentity.connect(scripted.address, clock=clock, deadline=60) as identity,
    ):
        first = identity.sealer().credential.token
        rotated = asyncio.Event()
        identity.on_rotation(rotated.set)
        # A second before half life; the rotation makes the refresh look at its clock once more, and wait again.
        clock.advance((identity.status().jwt_issued - clock()) / SECOND + JWT_TTL // 2 - 1)
        scripted.identity.renew()
        async with asyncio.timeout(DEADLINE):
            await rotated.wait()
        assert identity.sealer().credential.token == first
        await scripted.until("FetchJWTSVID", 2)
        await refreshed(identity, clock)
        assert identity.sealer().credential.token != first


@pytest.mark.slow
async def test_real_time() -> None:
    """X.509-SVIDs of 8 s by real clocks: each arrives with more than half of its life left."""
    async with (
        workload_api("planner", x509_ttl=8) as running,
        WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity,
    ):
        rotated = asyncio.Event()
        identity.on_rotation(rotated.set)
        leaves = {identity.x509().chain[0]}
        for _ in range(3):
            async with asyncio.timeout(DEADLINE):
                await rotated.wait()
            rotated.clear()
            assert identity.x509().not_after - running.authority.clock() > 2 * SECOND
            leaves.add(identity.x509().chain[0])
        assert len(leaves) == 4
