from __future__ import annotations

import asyncio
import logging

import pytest
from spiffe._proto import workload_pb2 as proto
from support.scripted_workload_api import ScriptedWorkloadApi
from support.workload_api import (
    MovedClock,
    Rotations,
    RunningWorkloadApi,
    no_thread_left,
    refreshed,
    short_folder,
    workload_api,
)

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.identity import WorkloadIdentity
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = pytest.mark.workload_api

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")


async def test_a_refused_jwt_bundle_leaves_the_old_one(
    scripted: ScriptedWorkloadApi, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged and counted; the stream lives on, and the next good one is taken."""
    counters = Counters()
    async with WorkloadIdentity.connect(scripted.address, counters=counters, deadline=60) as identity:
        before, changes = identity.bundles()[HOME], Rotations(identity)
        scripted.jwt_bundles = lambda response: proto.JWTBundlesResponse(
            bundles={"spiffe://example.org": b'{"keys": 1}', "spiffe://other.org": before.jwks}
        )
        scripted.identity.touch()
        await changes.next()
        assert identity.bundles()[HOME] is before
        assert AWAY in identity.bundles()
        assert counters.value("sealbus_identity_refused_total", source="jwt_bundles") == 1
        assert "refused, the one before stays in force: JWT bundle of example.org" in caplog.text
        scripted.jwt_bundles = lambda response: response
        scripted.identity.touch()
        await changes.next()
        assert list(identity.bundles()) == [HOME]
        assert scripted.calls["FetchJWTBundles"] == 1


async def test_an_x509_svid_that_does_not_verify_is_not_used(scripted: ScriptedWorkloadApi) -> None:
    """The old one serves, the stream is opened anew, and the first good one is taken."""
    counters = Counters()
    async with WorkloadIdentity.connect(scripted.address, counters=counters, deadline=60) as identity:
        before, changes = identity.x509(), Rotations(identity)
        scripted.x509 = lambda response: proto.X509SVIDResponse(svids=[proto.X509SVID(spiffe_id="nonsense")])
        scripted.identity.renew()
        await scripted.until("FetchX509SVID", 3)
        assert identity.x509() == before
        assert counters.value("sealbus_identity_failures_total", source="x509_svid", status="REFUSED") >= 1
        scripted.x509 = lambda response: response
        await changes.next()
        assert identity.x509().chain != before.chain


async def test_who_it_is_never_changes(scripted: ScriptedWorkloadApi, authority: DevelopmentAuthority) -> None:
    """Another default identity later on is not ours."""
    other = authority.issue_x509(authority.trust_domain.id("/agent/other"), ttl=60)
    async with WorkloadIdentity.connect(scripted.address, deadline=60) as identity:
        before = identity.x509()
        scripted.x509 = lambda response: proto.X509SVIDResponse(
            svids=[
                proto.X509SVID(
                    spiffe_id=str(other.spiffe_id),
                    x509_svid=other.chain[0],
                    x509_svid_key=other.key,
                    bundle=b"".join(authority.x509_bundle()),
                )
            ]
        )
        scripted.identity.renew()
        await scripted.until("FetchX509SVID", 2)
        assert identity.x509() == before


async def test_a_withdrawn_identity_is_not_used(running: RunningWorkloadApi, caplog: pytest.LogCaptureFixture) -> None:
    """SPIFFE_Workload_API.md section 5.2.1; and it comes back when it is declared again."""
    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        key, changes = identity.sealer().key, Rotations(identity)
        running.api.remove_identity(running.spiffe_id("planner"))
        while identity.bundles() or identity.status().x509_not_after:
            await changes.next()
        for read in (identity.sealer, identity.x509):
            with pytest.raises(IdentityUnavailable, match="register an entry"):
                read()
        assert identity.spiffe_id == running.spiffe_id("planner")
        assert identity.status().jwt_expires == 0
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) <= 3
        await running.add("planner")
        await refreshed(identity, b"")
        assert identity.sealer().key is key
        assert identity.x509().spiffe_id == identity.spiffe_id


async def test_an_agent_that_restarts_is_found_again(clock: MovedClock) -> None:
    """On the same socket, with the same authority: what it gave before serves meanwhile."""
    authority = DevelopmentAuthority(HOME, clock=clock)
    with short_folder() as folder:
        me = HOME.id("/agent/planner")
        first = EmbeddedWorkloadApi(folder, authority)
        async with first:
            address = await first.add_identity(me)
            context = WorkloadIdentity.connect(address, clock=clock, deadline=60)
            identity = await context.__aenter__()
        try:
            changes = Rotations(identity)
            assert identity.x509().spiffe_id == identity.sealer().iss == me
            async with EmbeddedWorkloadApi(folder, authority) as second:
                await second.add_identity(me)
                await changes.next()
                assert identity.x509().spiffe_id == me
        finally:
            await context.__aexit__(None, None, None)


async def test_failures_are_counted_by_source_and_status(running: RunningWorkloadApi) -> None:
    """For operators."""
    counters = Counters()
    async with WorkloadIdentity.connect(running.address("planner"), counters=counters, deadline=60) as identity:
        changes = Rotations(identity)
        running.api.remove_identity(running.spiffe_id("planner"))
        await changes.next()
    assert counters.value("sealbus_identity_failures_total", status="PERMISSION_DENIED", source="x509_svid") or (
        counters.value("sealbus_identity_failures_total", status="PERMISSION_DENIED", source="jwt_bundles")
    )
    assert counters.value("sealbus_identity_updates_total", source="x509_svid") >= 1
    assert counters.value("sealbus_identity_updates_total", source="jwt_svid") == 1


async def test_many_identities_in_one_process() -> None:
    """Each with its own socket, key and threads."""
    names = [f"agent-{number}" for number in range(8)]
    async with workload_api(*names) as running:
        with no_thread_left():
            contexts = [WorkloadIdentity.connect(running.address(name), deadline=60) for name in names]
            identities = await asyncio.gather(*(context.__aenter__() for context in contexts))
            assert len({identity.sealer().key.public for identity in identities}) == len(names)
            assert [identity.spiffe_id.path for identity in identities] == [f"/agent/{name}" for name in names]
            await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))
