"""The embedded Workload API's own ways; what any Workload API must do is in the contract test of the identity edge."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from spiffe import JwtSource, X509Source
from spiffe.errors import PySpiffeError
from spiffe.workloadapi.errors import X509SourceError
from support.workload_api import MovedClock, RunningWorkloadApi, short_folder, workload_api

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.dev.workload_api.server import MAX_SOCKET_PATH, EmbeddedWorkloadApi, socket_path
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.identity import WorkloadIdentity
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

pytestmark = pytest.mark.workload_api

HOME = TrustDomain("example.org")
ME = HOME.id("/agent/planner")
DEADLINE = 60.0


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fetch_id(address: str) -> str:
    with X509Source(socket_path=address, timeout_in_seconds=DEADLINE) as source:
        return str(source.get_x509_context().default_svid.spiffe_id)


async def test_one_private_socket_for_each_identity() -> None:
    """0600 in 0700; each socket says who its caller is, and nothing about the others."""
    async with workload_api("planner", "pricing") as running:
        folder = running.folder / "api"
        assert mode_of(folder) == 0o700
        assert {mode_of(path) for path in folder.iterdir()} == {0o600}
        assert len(list(folder.iterdir())) == 2
        for name in ("planner", "pricing"):
            assert await asyncio.to_thread(fetch_id, running.address(name)) == str(running.spiffe_id(name))
        assert running.api.identities == (running.spiffe_id("planner"), running.spiffe_id("pricing"))
    assert not list(running.folder.glob("api/*"))


async def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    """A folder of ours that others could enter gets its mode before the first socket is in it."""
    with short_folder() as folder:
        folder.chmod(0o755)
        async with EmbeddedWorkloadApi(folder, DevelopmentAuthority(HOME)):
            assert mode_of(folder) == 0o700


async def test_a_folder_that_is_none_is_refused() -> None:
    """Nor is a link followed: somebody else may own what it leads to."""
    with short_folder() as folder:
        (folder / "file").write_bytes(b"")
        (folder / "link").symlink_to(folder)
        for name in ("file", "link"):
            with pytest.raises(ConfigurationError, match=name):
                async with EmbeddedWorkloadApi(folder / name, DevelopmentAuthority(HOME)):
                    pass


async def test_a_path_that_is_too_long_is_named() -> None:
    """107 bytes are what the kernel holds; one more is an error that says so."""
    with short_folder() as folder:
        room = MAX_SOCKET_PATH - len(os.fsencode(folder)) - len("/agent+.sock")
        async with EmbeddedWorkloadApi(folder, DevelopmentAuthority(HOME)) as api:
            fitting, over = HOME.id(f"/agent/{'a' * room}"), HOME.id(f"/agent/{'a' * (room + 1)}")
            address = await api.add_identity(fitting)
            assert await asyncio.to_thread(fetch_id, address) == str(fitting)
            with pytest.raises(ConfigurationError, match="has 108 bytes, 107 are allowed"):
                await api.add_identity(over)
            assert api.identities == (fitting,)


def test_socket_names_are_distinct() -> None:
    """No two SPIFFE IDs share a socket: `+` stands in no SPIFFE ID."""
    folder = Path("/run")
    paths = ["/a/b", "/a.b", "/a-b", "/a_b", "/ab", "/a/b/c"]
    assert len({socket_path(folder, HOME.id(path)) for path in paths}) == len(paths)


async def test_a_stale_socket_is_survived() -> None:
    """What a killed process left behind is removed."""
    with short_folder() as folder:
        path = socket_path(folder, ME)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with EmbeddedWorkloadApi(folder, DevelopmentAuthority(HOME)) as api:
            assert await asyncio.to_thread(fetch_id, await api.add_identity(ME)) == str(ME)


async def test_a_living_socket_is_not_taken() -> None:
    """Two environments in one folder: the second says who is in the way, the first goes on."""
    with short_folder() as folder:
        async with EmbeddedWorkloadApi(folder, DevelopmentAuthority(HOME)) as first:
            address = await first.add_identity(ME)
            async with EmbeddedWorkloadApi(folder, DevelopmentAuthority(HOME)) as second:
                with pytest.raises(ConfigurationError, match="already listens"):
                    await second.add_identity(ME)
            assert await asyncio.to_thread(fetch_id, address) == str(ME)


async def test_what_is_not_declared_is_refused() -> None:
    """Foreign trust domains, twins, and names that were never declared."""
    async with workload_api("planner") as running:
        for spiffe_id in (SpiffeId("spiffe://other.org/agent/a"), running.spiffe_id("planner")):
            with pytest.raises(ConfigurationError, match=str(spiffe_id)):
                await running.api.add_identity(spiffe_id)
        for use in (running.api.address, running.api.remove_identity):
            with pytest.raises(ConfigurationError, match="not declared"):
                use(running.spiffe_id("nobody"))
    with pytest.raises(ConfigurationError):
        EmbeddedWorkloadApi(Path("x"), DevelopmentAuthority(HOME), jwt_ttl=0)


async def test_identities_come_and_go_at_run_time() -> None:
    """Removed: `PermissionDenied`, also on open streams; declared again: as before, on the same socket."""
    async with workload_api() as running:
        address = await running.add("planner")
        assert await asyncio.to_thread(fetch_id, address) == str(running.spiffe_id("planner"))
        running.api.remove_identity(running.spiffe_id("planner"))
        assert running.api.identities == ()

        def denied() -> None:
            with pytest.raises(PySpiffeError), JwtSource(socket_path=address, timeout_in_seconds=0.3):
                pass

        await asyncio.to_thread(denied)
        assert await running.add("planner") == address
        assert await asyncio.to_thread(fetch_id, address) == str(running.spiffe_id("planner"))


@pytest.mark.slow
async def test_svids_are_replaced_before_half_life() -> None:
    """On its own, again and again: an X.509-SVID of 2 s after 0.9 s."""
    async with workload_api("planner", x509_ttl=2) as running:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        started = loop.time()
        source = await asyncio.to_thread(
            X509Source, socket_path=running.address("planner"), timeout_in_seconds=DEADLINE
        )

        def tell() -> None:
            loop.call_soon_threadsafe(changed.set)

        source.subscribe_for_updates(tell)
        serials = {source.get_x509_context().default_svid.leaf.serial_number}
        async with asyncio.timeout(DEADLINE):
            while len(serials) < 3:
                await changed.wait()
                changed.clear()
                serials.add(source.get_x509_context().default_svid.leaf.serial_number)
        assert loop.time() - started >= 1.7
        await asyncio.to_thread(source.close)


async def test_all_streams_of_an_identity_see_one_svid(clock: MovedClock) -> None:
    """As many as are open, one key; it is due at 45 % of its life."""
    async with workload_api("planner", clock=clock, x509_ttl=1_000) as running:
        address = running.address("planner")
        async with (
            WorkloadIdentity.connect(address, clock=clock, deadline=60) as one,
            WorkloadIdentity.connect(address, clock=clock, deadline=60) as two,
        ):
            assert one.x509() == two.x509()
            assert one.sealer().key.public != two.sealer().key.public
            clock.advance(390)
            async with WorkloadIdentity.connect(address, clock=clock, deadline=60) as three:
                assert three.x509() == one.x509()
            clock.advance(61)
            async with WorkloadIdentity.connect(address, clock=clock, deadline=60) as four:
                assert four.x509() != one.x509()


async def test_jwt_svids_are_kept_until_half_life(clock: MovedClock) -> None:
    """Like SPIRE's agent: per audience, and made anew once the signing key has changed."""
    domain = TrustDomain("example.org")
    authority = DevelopmentAuthority(domain, clock=clock)
    identity = DeclaredIdentity(authority, domain.id("/agent/planner"), x509_ttl=60, jwt_ttl=100)
    first = identity.token(["a"])
    assert identity.token(["a"]) is first
    assert identity.token(["b"]) is not first
    assert identity.token(["b", "a"]) is identity.token(["a", "b"])
    clock.advance(49)
    assert identity.token(["a"]) is first
    clock.advance(2)
    second = identity.token(["a"])
    assert second is not first
    authority.prepare_jwt()
    assert identity.token(["a"]) is second
    authority.activate_jwt()
    third = identity.token(["a"])
    assert third is not second
    # The token that was used last stays, and of the others the last ones.
    kept = [identity.token([f"audience {number}"]) for number in range(999)]
    assert identity.token(["a"]) is third
    identity.token(["one more"])
    assert identity.token(["a"]) is third
    assert identity.token(["audience 998"]) is kept[998]
    assert identity.token(["audience 0"]) is not kept[0]


async def test_server_svid_files() -> None:
    """Chain, private key and bundle as PEM, for a server that speaks no SPIFFE."""
    async with workload_api() as running:
        server = HOME.id("/nats/server")
        folder = running.folder / "nats"
        files = write_server_svid(folder, running.api.authority, server, dns=("localhost", "127.0.0.1"), ttl=3600)
        assert mode_of(files.key) == 0o600
        assert mode_of(folder) == 0o700
        leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        assert key.public_key() == leaf.public_key()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(server)]
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
        assert leaf.not_valid_after_utc.timestamp() == files.not_after / SECOND
        roots = x509.load_pem_x509_certificates(files.bundle.read_bytes())
        assert [root.public_bytes(serialization.Encoding.DER) for root in roots] == list(
            running.authority.x509_bundle()
        )
        before = files.certificate.read_bytes()
        write_server_svid(folder, running.api.authority, server)
        assert files.certificate.read_bytes() != before
        assert sorted(path.name for path in folder.iterdir()) == ["bundle.pem", "svid.key", "svid.pem"]


async def test_streams_end_when_it_stops() -> None:
    """A source sees its agent go, not an identity that was withdrawn."""
    async with workload_api("planner") as running:
        source = await asyncio.to_thread(
            X509Source, socket_path=running.address("planner"), timeout_in_seconds=DEADLINE
        )
    assert str(source.get_x509_context().default_svid.spiffe_id) == str(ME)
    await asyncio.to_thread(source.close)
    with pytest.raises(X509SourceError):
        source.get_x509_context()


@pytest.fixture
def clock() -> MovedClock:
    """The clock that both sides read."""
    return MovedClock()


def test_running_fixture_speaks_of_agents_by_name() -> None:
    """`support.workload_api` builds the IDs that the settings' default template builds."""
    authority = DevelopmentAuthority(HOME)
    running = RunningWorkloadApi(api=EmbeddedWorkloadApi(Path("x"), authority), authority=authority, folder=Path("x"))
    assert running.spiffe_id("planner") == ME
