from __future__ import annotations

import asyncio
import logging
import socket
import time

import grpc.aio  # type: ignore[import-untyped]
import pytest
from spiffe._proto import workload_pb2 as proto
from support.scripted_workload_api import ScriptedWorkloadApi, scripted_workload_api
from support.workload_api import MovedClock, RunningWorkloadApi, no_thread_left, short_folder, workload_api

from sealbus.agents.dev.workload_api import DevelopmentAuthority, EmbeddedWorkloadApi
from sealbus.agents.identity import WorkloadIdentity
from sealbus.bus.counters import Counters
from sealbus.bus.ports import Identity
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.spiffe_id import TrustDomain

pytestmark = pytest.mark.workload_api

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")


class Changes:
    """Rotations of an identity, awaitable one by one or until something holds."""

    def __init__(self, identity: WorkloadIdentity) -> None:
        self._event = asyncio.Event()
        self.count = 0
        self.end = identity.on_rotation(self._heard)

    def _heard(self) -> None:
        self.count += 1
        self._event.set()

    async def next(self) -> None:
        async with asyncio.timeout(20):
            await self._event.wait()
        self._event.clear()


async def refreshed(identity: WorkloadIdentity, token: bytes) -> bytes:
    """The next credential's token: there is no event for it, because nobody but tests waits for one."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if identity.sealer().credential.token != token:
                return identity.sealer().credential.token
        except IdentityUnavailable:
            pass
        await asyncio.sleep(0.005)
    raise AssertionError("no new credential")


async def test_it_is_an_identity_for_the_bus(running: RunningWorkloadApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole once it is entered; the socket comes from `SPIFFE_ENDPOINT_SOCKET`."""
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", running.address("planner"))
    async with WorkloadIdentity.connect() as workload:
        identity: Identity = workload
        me = running.spiffe_id("planner")
        assert identity.spiffe_id == identity.sealer().iss == identity.x509().spiffe_id == me
        assert identity.bundles()[HOME].jwks == running.authority.jwt_bundle()
        assert identity.x509().bundles[HOME] == running.authority.x509_bundle()
        status = workload.status()
        assert status.spiffe_id == me
        assert status.endpoint == running.address("planner")
        assert status.thumbprint == identity.sealer().key.public.thumbprint
        assert status.jwt_expires == identity.sealer().expires
        assert status.x509_not_after == identity.x509().not_after
        assert status.x509_trust == status.jwt_trust == (HOME,)
        assert status.failure == ""


async def test_no_thread_and_no_task_is_left(running: RunningWorkloadApi) -> None:
    """Whatever was started ends with the context, also when its body raises; the error comes out as it is."""
    with no_thread_left():
        async with WorkloadIdentity.connect(running.address("planner")):
            assert [task for task in asyncio.all_tasks() if task.get_name().startswith("workload")]
        with pytest.raises(LookupError):
            async with WorkloadIdentity.connect(running.address("planner")):
                raise LookupError
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("workload")]


async def test_closed_it_gives_nothing(running: RunningWorkloadApi) -> None:
    """A reference that outlives its context cannot go on sealing."""
    async with WorkloadIdentity.connect(running.address("planner")) as identity:
        pass
    for read in (identity.sealer, identity.x509):
        with pytest.raises(IdentityUnavailable, match="closed"):
            read()


async def test_jwt_svids_are_asked_for_one_audience_only(scripted: ScriptedWorkloadApi) -> None:
    """The thumbprint of this process's key: SPEC.md section 5."""
    async with WorkloadIdentity.connect(scripted.address) as identity:
        assert scripted.audiences == [[identity.sealer().key.public.thumbprint]]


# The first connect


async def test_no_socket_fails_at_once() -> None:
    """One line with the path."""
    with pytest.raises(IdentityUnavailable, match=r"no Workload API at unix:///nonexistent/a\.sock.*start the SPIRE"):
        async with WorkloadIdentity.connect("unix:///nonexistent/a.sock"):
            pass


async def test_no_address_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matter of settings."""
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    with pytest.raises(ConfigurationError, match="SPIFFE_ENDPOINT_SOCKET"):
        async with WorkloadIdentity.connect():
            pass


async def test_a_dead_socket_fails_at_once() -> None:
    """Its file is there, but nobody listens."""
    with short_folder() as folder, no_thread_left():
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / "a.sock"))
        started = time.monotonic()
        with pytest.raises(IdentityUnavailable, match=r"a\.sock does not answer: start the SPIRE agent"):
            async with WorkloadIdentity.connect(str(folder / "a.sock"), deadline=30):
                pass
        assert time.monotonic() - started < 10


async def test_no_entry_fails_at_once(running: RunningWorkloadApi, caplog: pytest.LogCaptureFixture) -> None:
    """`PermissionDenied` says to register one; nothing is logged beside the error."""
    running.api.remove_identity(running.spiffe_id("planner"))
    with no_thread_left(), caplog.at_level(logging.INFO), pytest.raises(IdentityUnavailable) as caught:
        async with WorkloadIdentity.connect(running.address("planner"), deadline=30):
            pass
    assert running.address("planner") in str(caught.value)
    assert "register an entry" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caplog.records == []


async def test_another_service_fails_at_once() -> None:
    """Some gRPC server that is no Workload API."""
    server = grpc.aio.server()
    with short_folder() as folder:
        server.add_insecure_port(f"unix:{folder}/a.sock")
        await server.start()
        with pytest.raises(IdentityUnavailable, match="is not a SPIFFE Workload API"):
            async with WorkloadIdentity.connect(f"unix://{folder}/a.sock", deadline=30):
                pass
        await server.stop(None)


async def test_silence_ends_at_the_deadline(scripted: ScriptedWorkloadApi) -> None:
    """An agent that hangs."""
    scripted.silent = True
    with no_thread_left(), pytest.raises(IdentityUnavailable, match=r"no identity within 0\.2 s.*has not answered"):
        async with WorkloadIdentity.connect(scripted.address, deadline=0.2):
            pass


async def test_a_missing_identity_is_named(running: RunningWorkloadApi) -> None:
    """Asked for one that this socket does not have."""
    with pytest.raises(IdentityUnavailable, match=r"gave no X\.509-SVID of spiffe://example\.org/agent/other"):
        async with WorkloadIdentity.connect(running.address("planner"), spiffe_id=running.spiffe_id("other")):
            pass


async def test_tokens_that_never_live_long_enough_are_named(authority: DevelopmentAuthority) -> None:
    """Their TTL is what has to change."""
    async with scripted_workload_api(authority, jwt_ttl=15) as scripted:
        with pytest.raises(IdentityUnavailable, match="live 15 s, sealing needs 20: raise their TTL"):
            async with WorkloadIdentity.connect(scripted.address, clock=authority.clock):
                pass


async def test_a_foreign_token_is_never_used(scripted: ScriptedWorkloadApi) -> None:
    """For another audience: no identity, and the line says what is wrong with it."""
    scripted.token = lambda audience: scripted.identity.token(["orders"]).token
    with pytest.raises(IdentityUnavailable, match=r"does not verify.*aud is not the thumbprint"):
        async with WorkloadIdentity.connect(scripted.address, deadline=0.5):
            pass


async def test_a_token_that_overtakes_its_bundle_is_asked_for_again(
    scripted: ScriptedWorkloadApi, authority: DevelopmentAuthority
) -> None:
    """The first JWT bundle lacks the key: the second attempt, with the bundle there, is good."""
    hidden = DevelopmentAuthority(authority.trust_domain)
    scripted.jwt_bundles = lambda response: proto.JWTBundlesResponse(
        bundles={"spiffe://example.org": hidden.jwt_bundle()}
    )

    async def mend() -> None:
        await scripted.until("FetchJWTSVID", 2)
        scripted.jwt_bundles = lambda response: response
        scripted.identity.touch()

    async with asyncio.TaskGroup() as group:
        group.create_task(mend())
        async with WorkloadIdentity.connect(scripted.address, deadline=20) as identity:
            assert identity.sealer().iss == identity.spiffe_id


# Staying current


async def test_rotation_of_the_x509_svid_calls_back(running: RunningWorkloadApi) -> None:
    """A new chain and key; unsubscribed, no call any more."""
    async with WorkloadIdentity.connect(running.address("planner")) as identity:
        first, changes = identity.x509(), Changes(identity)
        running.api.renew()
        await changes.next()
        second = identity.x509()
        assert second.chain != first.chain
        assert second.key != first.key
        changes.end()
        others = Changes(identity)
        running.api.renew()
        await others.next()
        assert changes.count == 1


async def test_the_same_svid_again_is_no_rotation(scripted: ScriptedWorkloadApi) -> None:
    """A stream that is opened anew sends what is known already."""
    async with WorkloadIdentity.connect(scripted.address) as identity:
        changes = Changes(identity)
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

    async with WorkloadIdentity.connect(running.address("planner")) as identity:
        identity.on_rotation(bad)
        changes = Changes(identity)
        for _ in range(2):
            running.api.renew()
            await changes.next()
    assert "a bug in a callback" in caplog.text


async def test_expired_is_unavailable(running: RunningWorkloadApi, clock: MovedClock) -> None:
    """At the very end of its life; nothing has to arrive for that."""
    async with WorkloadIdentity.connect(running.address("planner"), clock=clock) as identity:
        clock.advance((identity.x509().not_after - clock()) / SECOND + 1)
        with pytest.raises(IdentityUnavailable, match="expired"):
            identity.x509()


async def test_credential_is_refreshed_at_half_life(running: RunningWorkloadApi, clock: MovedClock) -> None:
    """JWT-SVIDs of 120 s: not before 60 s, and with the same key."""
    async with WorkloadIdentity.connect(running.address("planner"), clock=clock) as identity:
        first, changes = identity.sealer(), Changes(identity)
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
    async with WorkloadIdentity.connect(running.address("planner")) as identity:
        first = identity.sealer().credential.token
        running.authority.prepare_jwt()
        running.authority.activate_jwt()
        running.authority.prune_jwt()
        await refreshed(identity, first)


async def test_a_failed_refresh_is_tried_again_and_the_old_one_serves(
    scripted: ScriptedWorkloadApi, clock: MovedClock, authority: DevelopmentAuthority
) -> None:
    """Until 20 s before its end; then nothing is sealed."""
    async with WorkloadIdentity.connect(scripted.address, clock=clock) as identity:
        first = identity.sealer().credential.token
        scripted.status["FetchJWTSVID"] = "UNAVAILABLE"
        clock.advance(61)
        authority.prepare_jwt()
        await scripted.until("FetchJWTSVID", 3)
        assert identity.sealer().credential.token == first
        assert "does not answer" in identity.status().failure
        clock.advance(40)
        with pytest.raises(IdentityUnavailable):
            identity.sealer()
        del scripted.status["FetchJWTSVID"]
        await refreshed(identity, first)
        assert identity.status().failure == ""


async def test_ca_rotation_is_followed(running: RunningWorkloadApi) -> None:
    """Both CAs while they overlap, then the new one alone; the chain always verifies, or it would not be taken."""
    async with WorkloadIdentity.connect(running.address("planner")) as identity:
        changes = Changes(identity)
        sizes = []
        for step in (running.authority.prepare_x509, running.authority.activate_x509, running.authority.prune_x509):
            step()
            await changes.next()
            sizes.append(len(identity.x509().bundles[HOME]))
        assert sizes == [2, 2, 1]


async def test_federated_bundles_are_kept_apart(running: RunningWorkloadApi) -> None:
    """They come, and go when the federation ends."""
    away = DevelopmentAuthority(AWAY)
    async with WorkloadIdentity.connect(running.address("planner")) as identity:
        changes = Changes(identity)
        end = running.authority.federate(away)
        while AWAY not in identity.bundles() or AWAY not in identity.x509().bundles:
            await changes.next()
        assert identity.bundles()[AWAY].jwks == away.jwt_bundle()
        assert identity.bundles()[HOME].jwks == running.authority.jwt_bundle()
        assert identity.x509().bundles[AWAY] == away.x509_bundle()
        end()
        while AWAY in identity.bundles() or AWAY in identity.x509().bundles:
            await changes.next()


# What goes wrong


async def test_a_refused_jwt_bundle_leaves_the_old_one(
    scripted: ScriptedWorkloadApi, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged and counted; the stream lives on, and the next good one is taken."""
    counters = Counters()
    async with WorkloadIdentity.connect(scripted.address, counters=counters) as identity:
        before, changes = identity.bundles()[HOME], Changes(identity)
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
    async with WorkloadIdentity.connect(scripted.address, counters=counters) as identity:
        before, changes = identity.x509(), Changes(identity)
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
    async with WorkloadIdentity.connect(scripted.address) as identity:
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
    async with WorkloadIdentity.connect(running.address("planner")) as identity:
        key, changes = identity.sealer().key, Changes(identity)
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
            context = WorkloadIdentity.connect(address, clock=clock)
            identity = await context.__aenter__()
        try:
            changes = Changes(identity)
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
    async with WorkloadIdentity.connect(running.address("planner"), counters=counters) as identity:
        changes = Changes(identity)
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
            contexts = [WorkloadIdentity.connect(running.address(name)) for name in names]
            identities = await asyncio.gather(*(context.__aenter__() for context in contexts))
            assert len({identity.sealer().key.public for identity in identities}) == len(names)
            assert [identity.spiffe_id.path for identity in identities] == [f"/agent/{name}" for name in names]
            await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))
