from __future__ import annotations

import pytest
from support.scripted_workload_api import ScriptedWorkloadApi
from support.workload_api import (
    MovedClock,
    Rotations,
    RunningWorkloadApi,
    refreshed,
)

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.identity import WorkloadIdentity
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = pytest.mark.workload_api

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")


async def test_rotation_of_the_x509_svid_calls_back(running: RunningWorkloadApi) -> None:
    """A new chain and key; unsubscribed, no call any more."""
    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        first, changes = identity.x509(), Rotations(identity)
        running.api.renew()
        await changes.next()
        second = identity.x509()
        assert second.chain != first.chain
        assert second.key != first.key
        changes.end()
        others = Rotations(identity)
        running.api.renew()
        await others.next()
        assert changes.count == 1


async def test_the_same_svid_again_is_no_rotation(scripted: ScriptedWorkloadApi) -> None:
    """A stream that is opened anew sends what is known already."""
    async with WorkloadIdentity.connect(scripted.address, deadline=60) as identity:
        changes = Rotations(identity)
        scripted.identity.touch()
        scripted.identity.renew()
        await changes.next()
        assert changes.count == 1


async def test_a_callback_that_raises_harms_nobody(
    running: RunningWorkloadApi, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the others hear."""

    def bad() -> None:
        raise LookupError("a bug in a callback")

    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        identity.on_rotation(bad)
        changes = Rotations(identity)
        for _ in range(2):
            running.api.renew()
            await changes.next()
    assert "a bug in a callback" in caplog.text


async def test_expired_is_unavailable(running: RunningWorkloadApi, clock: MovedClock) -> None:
    """At the very end of its life; nothing has to arrive for that."""
    async with WorkloadIdentity.connect(running.address("planner"), clock=clock, deadline=60) as identity:
        clock.advance((identity.x509().not_after - clock()) / SECOND + 1)
        with pytest.raises(IdentityUnavailable, match="expired"):
            identity.x509()


async def test_credential_is_refreshed_at_half_life(running: RunningWorkloadApi, clock: MovedClock) -> None:
    """JWT-SVIDs of 120 s: not before 60 s, and with the same key."""
    async with WorkloadIdentity.connect(running.address("planner"), clock=clock, deadline=60) as identity:
        first, changes = identity.sealer(), Rotations(identity)
        clock.advance(55)
        running.authority.prepare_jwt()  # wakes the refresh, which is not due yet
        await changes.next()
        assert identity.sealer().credential == first.credential
        clock.advance(6)
        running.authority.activate_jwt()
        running.authority.prune_jwt()
        token = await refreshed(identity, first.credential.token)
        assert identity.sealer().key is first.key
        assert identity.sealer().credential.token == token
        assert identity.sealer().expires > first.expires


async def test_credential_whose_key_is_gone_is_replaced_at_once(running: RunningWorkloadApi) -> None:
    """Readers would refuse it: long before half life."""
    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        first = identity.sealer().credential.token
        running.authority.prepare_jwt()
        running.authority.activate_jwt()
        running.authority.prune_jwt()
        await refreshed(identity, first)


async def test_a_failed_refresh_is_tried_again_and_the_old_one_serves(
    scripted: ScriptedWorkloadApi, clock: MovedClock, authority: DevelopmentAuthority
) -> None:
    """Until 20 s before its end; then nothing is sealed."""
    async with WorkloadIdentity.connect(scripted.address, clock=clock, deadline=60) as identity:
        first = identity.sealer().credential.token
        scripted.status["FetchJWTSVID"] = "UNAVAILABLE"
        clock.advance(61)
        authority.prepare_jwt()
        await scripted.until("FetchJWTSVID", 3)
        assert identity.sealer().credential.token == first
        assert "is overloaded" in identity.status().failure
        clock.advance(40)
        with pytest.raises(IdentityUnavailable):
            identity.sealer()
        del scripted.status["FetchJWTSVID"]
        await refreshed(identity, first)
        assert identity.status().failure == ""


async def test_ca_rotation_is_followed(running: RunningWorkloadApi) -> None:
    """Both CAs while they overlap, then the new one alone; the chain always verifies, or it would not be taken."""
    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        changes = Rotations(identity)
        sizes = []
        for step in (running.authority.prepare_x509, running.authority.activate_x509, running.authority.prune_x509):
            step()
            await changes.next()
            sizes.append(len(identity.x509().bundles[HOME]))
        assert sizes == [2, 2, 1]


async def test_federated_bundles_are_kept_apart(running: RunningWorkloadApi) -> None:
    """They come, and go when the federation ends."""
    away = DevelopmentAuthority(AWAY)
    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        changes = Rotations(identity)
        end = running.authority.federate(away)
        while AWAY not in identity.bundles() or AWAY not in identity.x509().bundles:
            await changes.next()
        assert identity.bundles()[AWAY].jwks == away.jwt_bundle()
        assert identity.bundles()[HOME].jwks == running.authority.jwt_bundle()
        assert identity.x509().bundles[AWAY] == away.x509_bundle()
        end()
        while AWAY in identity.bundles() or AWAY in identity.x509().bundles:
            await changes.next()
