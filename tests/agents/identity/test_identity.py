from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
import pytest
from spiffe._proto import workload_pb2 as proto
from support.lab import until
from support.scripted_workload_api import ScriptedWorkloadApi, scripted_workload_api
from support.workload_api import (
    MovedClock,
    RunningWorkloadApi,
    no_thread_left,
    short_folder,
)

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi, socket_path
from sealbus.agents.identity import WorkloadIdentity
from sealbus.bus.ports import Identity
from sealbus.envelopes.encoding.jws import decode_base64url
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

pytestmark = pytest.mark.workload_api

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")

CLIENTS = 500
TESTS = Path(__file__).parents[2]
SERVE = """
import asyncio, sys
from support.workload_api import workload_api
async def serve():
    async with workload_api(sys.argv[1]) as running:
        print(running.address(sys.argv[1]), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(serve())
"""
CLIENTS_PER_PROCESS = 50
"""Each has three threads: all 500 in one process wait longer for its interpreter than for the Workload API."""
START = """
import asyncio, sys
from sealbus.agents.identity import WorkloadIdentity
async def start():
    address, clients = sys.argv[1], int(sys.argv[2])
    all_in = asyncio.Barrier(clients + 1)
    async def one():
        async with WorkloadIdentity.connect(address, deadline=300, patient=True) as identity:
            assert identity.sealer().iss == identity.spiffe_id
            await all_in.wait()
            await all_in.wait()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(one())
        await all_in.wait()
        print("all in", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await all_in.wait()
asyncio.run(start())
"""


async def line_of(process: asyncio.subprocess.Process) -> str:
    """Return the next line that `process` prints, or nothing when it has ended."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@asynccontextmanager
async def served_elsewhere(name: str) -> AsyncIterator[str]:
    """Serve the agent `name` from a process of its own, whose event loop is not ours; yield the address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, name, cwd=TESTS, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    try:
        yield await line_of(process)
    finally:
        process.stdin.close()
        await process.wait()


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
        async with WorkloadIdentity.connect(running.address("planner"), deadline=60):
            assert [task for task in asyncio.all_tasks() if task.get_name().startswith("workload")]
        with pytest.raises(LookupError):
            async with WorkloadIdentity.connect(running.address("planner"), deadline=60):
                raise LookupError
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("workload")]


async def test_closed_it_gives_nothing(running: RunningWorkloadApi) -> None:
    """A reference that outlives its context cannot go on sealing."""
    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        pass
    for read in (identity.sealer, identity.x509):
        with pytest.raises(IdentityUnavailable, match="closed"):
            read()


async def test_jwt_svids_are_asked_for_one_audience_only(scripted: ScriptedWorkloadApi) -> None:
    """The thumbprint of this process's key: SPEC.md section 5."""
    async with WorkloadIdentity.connect(scripted.address, deadline=60) as identity:
        assert scripted.audiences == [[identity.sealer().key.public.thumbprint]]


async def test_a_jwt_svid_for_another_service_is_for_its_url_alone(running: RunningWorkloadApi) -> None:
    """Whatever names a key cannot be asked for: it would vouch for that key."""
    async with WorkloadIdentity.connect(running.address("planner"), deadline=60) as identity:
        token = await identity.assertion("https://idp.example/realms/bus")
        claims = json.loads(decode_base64url(token.split(".")[1].encode()))
        assert claims["aud"] == ["https://idp.example/realms/bus"]
        assert claims["sub"] == str(running.spiffe_id("planner"))
        for audience in (identity.sealer().key.public.thumbprint, "urn:x", "idp.example", "spiffe://example.org/a", ""):
            with pytest.raises(ValueError, match="not a URL"):
                await identity.assertion(audience)
    with pytest.raises(IdentityUnavailable, match="closed"):
        await identity.assertion("https://idp.example")


async def test_a_workload_api_without_a_jwt_svid_for_another_service(scripted: ScriptedWorkloadApi) -> None:
    """The service cannot be asked then; what is sealed with does not change."""
    async with WorkloadIdentity.connect(scripted.address, deadline=60) as identity:
        sealer = identity.sealer()
        scripted.status["FetchJWTSVID"] = "PERMISSION_DENIED"
        with no_thread_left(), pytest.raises(IdentityUnavailable, match="another service: PERMISSION_DENIED"):
            await identity.assertion("https://idp.example")
        assert identity.sealer() is sealer


# The first connect


async def test_no_socket_fails_at_once() -> None:
    """One line with the path."""
    with pytest.raises(IdentityUnavailable, match=r"no Workload API at unix:///nonexistent/a\.sock.*start the SPIRE"):
        async with WorkloadIdentity.connect("unix:///nonexistent/a.sock", deadline=60):
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
        with pytest.raises(IdentityUnavailable, match=r"a\.sock does not answer: start the SPIRE agent"):
            async with asyncio.timeout(60), WorkloadIdentity.connect(str(folder / "a.sock"), deadline=3_600):
                pass


async def test_no_entry_fails_at_once(running: RunningWorkloadApi, caplog: pytest.LogCaptureFixture) -> None:
    """`PermissionDenied` says to register one; nothing is logged beside the error."""
    running.api.remove_identity(running.spiffe_id("planner"))
    with no_thread_left(), caplog.at_level(logging.INFO), pytest.raises(IdentityUnavailable) as caught:
        async with WorkloadIdentity.connect(running.address("planner"), deadline=60.0):
            pass
    assert running.address("planner") in str(caught.value)
    assert "register an entry" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caplog.records == []


async def test_who_is_patient_waits_for_an_agent_that_starts_late(
    authority: DevelopmentAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a socket, then without an entry, then whole: each is told once while it is waited for."""
    planner = authority.trust_domain.id("/agent/planner")
    with short_folder() as folder, caplog.at_level(logging.WARNING), no_thread_left():
        path = socket_path(folder / "api", planner)

        async def connect() -> SpiffeId:
            async with WorkloadIdentity.connect(
                f"unix://{path}", deadline=30, patient=True, clock=authority.clock
            ) as identity:
                return identity.sealer().iss

        connecting = asyncio.create_task(connect())
        await until(lambda: "start the SPIRE agent" in caplog.text)
        async with EmbeddedWorkloadApi(folder / "api", authority) as api:
            await api.add_identity(planner)
            api.remove_identity(planner)
            await until(lambda: "register an entry" in caplog.text)
            assert not connecting.done()
            await api.add_identity(planner)
            assert await connecting == planner
    told = [record.getMessage() for record in caplog.records if "is waited for" in record.getMessage()]
    assert sum("start the SPIRE agent" in line for line in told) == 1
    assert sum("register an entry" in line for line in told) == 1


async def test_the_deadline_of_who_is_patient_names_the_cause() -> None:
    """What was wrong to the last."""
    with pytest.raises(IdentityUnavailable, match=r"no identity within 0\.3 s: no Workload API at unix:///nonexistent"):
        async with WorkloadIdentity.connect("unix:///nonexistent/a.sock", deadline=0.3, patient=True):
            pass


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("status", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
async def test_an_overload_is_lived_through(scripted: ScriptedWorkloadApi, status: str, *, patient: bool) -> None:
    """By who waits for nothing else, too."""
    for rpc in ("FetchX509SVID", "FetchJWTBundles", "FetchJWTSVID"):
        scripted.status[rpc] = status

    async def relieve() -> None:
        for rpc in ("FetchX509SVID", "FetchJWTBundles", "FetchJWTSVID"):
            await scripted.until(rpc, 2)
            del scripted.status[rpc]

    async with asyncio.TaskGroup() as group:
        group.create_task(relieve())
        async with WorkloadIdentity.connect(scripted.address, deadline=20, patient=patient) as identity:
            assert identity.sealer().iss == identity.spiffe_id


async def test_an_overload_that_lasts_is_no_absence(scripted: ScriptedWorkloadApi) -> None:
    """Nobody is told to start what is running."""
    scripted.status["FetchX509SVID"] = "UNAVAILABLE"
    with pytest.raises(IdentityUnavailable, match="listens, but is overloaded") as caught:
        async with WorkloadIdentity.connect(scripted.address, deadline=0.5):
            pass
    assert "start the SPIRE" not in str(caught.value)


@pytest.mark.serial
async def test_five_hundred_that_start_together_all_get_their_identity() -> None:
    """Against a Workload API in a process of its own; each stays until all are in."""
    processes: list[asyncio.subprocess.Process] = []
    async with served_elsewhere("planner") as address:
        try:
            while len(processes) < CLIENTS // CLIENTS_PER_PROCESS:
                command = (sys.executable, "-c", START, address, str(CLIENTS_PER_PROCESS))
                pipe = asyncio.subprocess.PIPE
                processes.append(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
            assert [await line_of(process) for process in processes] == ["all in"] * len(processes)
            for process in processes:
                await process.communicate(b"")  # the end of its input lets its clients go
                assert process.returncode == 0
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def test_another_service_fails_at_once() -> None:
    """Some gRPC server that is no Workload API."""
    server = grpc.aio.server()
    with short_folder() as folder:
        server.add_insecure_port(f"unix:{folder}/a.sock")
        await server.start()
        with pytest.raises(IdentityUnavailable, match="is not a SPIFFE Workload API"):
            async with WorkloadIdentity.connect(f"unix://{folder}/a.sock", deadline=60.0):
                pass
        await server.stop(None)


async def test_another_service_fails_at_once_to_who_is_patient() -> None:
    """No waiting makes a Workload API of it."""
    server = grpc.aio.server()
    with short_folder() as folder:
        server.add_insecure_port(f"unix:{folder}/a.sock")
        await server.start()
        with pytest.raises(IdentityUnavailable, match=r"^(?!.*no identity within).*is not a SPIFFE Workload API"):
            async with WorkloadIdentity.connect(f"unix://{folder}/a.sock", deadline=30, patient=True):
                pass
        await server.stop(None)


async def test_silence_ends_at_the_deadline(scripted: ScriptedWorkloadApi) -> None:
    """An agent that hangs."""
    scripted.silent = True
    with (
        no_thread_left(),
        pytest.raises(
            IdentityUnavailable,
            match=r"no identity within 0\.2 s.*listens but has not answered: it is overloaded or hangs",
        ),
    ):
        async with WorkloadIdentity.connect(scripted.address, deadline=0.2):
            pass


async def test_a_missing_identity_is_named(running: RunningWorkloadApi) -> None:
    """Asked for one that this socket does not have."""
    with pytest.raises(
        IdentityUnavailable, match=r"agent/planner, not spiffe://example\.org/agent/other: correct its entry"
    ):
        async with WorkloadIdentity.connect(
            running.address("planner"), spiffe_id=running.spiffe_id("other"), deadline=60
        ):
            pass


@pytest.mark.parametrize("ttl", [15, 20])
async def test_tokens_that_never_live_long_enough_are_named(authority: DevelopmentAuthority, ttl: int) -> None:
    """Their TTL is what has to change."""
    async with scripted_workload_api(authority, jwt_ttl=ttl) as scripted:
        with pytest.raises(IdentityUnavailable, match=f"live {ttl} s, sealing needs 20: raise their TTL"):
            async with WorkloadIdentity.connect(scripted.address, clock=authority.clock, deadline=60):
                pass


async def test_a_token_that_came_late_is_asked_for_again(clock: MovedClock, authority: DevelopmentAuthority) -> None:
    """A process that did not run for a while finds it old, and waits for the next one."""
    begun = clock()
    async with scripted_workload_api(authority, x509_ttl=600, jwt_ttl=60) as scripted:
        given = scripted.token

        def delayed(audience: list[str]) -> str:
            token = given(audience)
            clock.advance(45)
            scripted.token = given
            return token

        scripted.token = delayed
        async with WorkloadIdentity.connect(scripted.address, clock=clock, deadline=60) as identity:
            assert identity.sealer().expires - clock() > 20 * SECOND
            assert identity.status().jwt_issued > begun + 44 * SECOND


async def test_tokens_that_all_come_late_are_named(authority: DevelopmentAuthority) -> None:
    """The deadline is in force for them, too."""
    clock = authority.clock
    async with scripted_workload_api(authority, jwt_ttl=60) as scripted:
        with pytest.raises(IdentityUnavailable, match=r"within 4 s: .* has 1\d s left of 60, .* this host's clock"):
            async with WorkloadIdentity.connect(scripted.address, clock=lambda: clock() + 45 * SECOND, deadline=4):
                pass


async def test_who_waits_for_a_newer_token_hears_of_an_end(authority: DevelopmentAuthority) -> None:
    """Not only at the deadline."""
    clock = authority.clock
    async with scripted_workload_api(authority, jwt_ttl=60) as scripted:

        async def end() -> None:
            await scripted.until("FetchJWTSVID", 1)
            scripted.status["FetchJWTSVID"] = "UNIMPLEMENTED"

        async with asyncio.TaskGroup() as group:
            group.create_task(end())
            with pytest.raises(IdentityUnavailable, match=r"^(?!.*no identity within).*is not a SPIFFE Workload API"):
                async with WorkloadIdentity.connect(
                    scripted.address, clock=lambda: clock() + 45 * SECOND, deadline=3_600
                ):
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
        async with WorkloadIdentity.connect(scripted.address, deadline=60.0) as identity:
            assert identity.sealer().iss == identity.spiffe_id
