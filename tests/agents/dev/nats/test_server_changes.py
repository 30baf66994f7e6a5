"""The embedded nats-server, real: workloads that come and go, and its SVID, renewed in time."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from support.dev_broker import INVENTORY, NAMES, PRICING, REFUSED, SECONDS, WORKLOADS, Site, running, served_serial
from support.x509 import ThrowawayCa

from sealbus.agents.dev.nats import server as nats_server
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.nats


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(folder=tmp_path)


async def test_an_agent_is_added_and_removed_without_disturbing_the_others(site: Site) -> None:
    newcomer = NAMES.id_of("newcomer")
    async with running(site) as server, site.connect(server, INVENTORY) as agent:
        await server.permit(newcomer)
        assert server.workloads[newcomer] is BrokerRole.AGENT
        async with site.connect(server, newcomer) as client:
            assert await client.may_publish("audit.newcomer")
            assert await agent.may_publish("task.newcomer.hello")
            await server.withdraw(newcomer)
            await client.closed()
        with pytest.raises(REFUSED):
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
    with pytest.raises(BusUnavailable, match="nats-server is not running"):
        await server.permit(NAMES.id_of("newcomer"))


async def test_the_server_svid_is_written_again_at_half_its_life(site: Site) -> None:
    site.life = 8.0
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
        with pytest.raises(REFUSED):
            await site.connect(server, INVENTORY, ca=other).__aenter__()
        site.wrote.clear()
        old, site.ca = site.ca, other
        server.renew()
        async with asyncio.timeout(SECONDS):
            await site.wrote.wait()
        await server.permit(PRICING)
        async with site.connect(server, INVENTORY):
            pass
        with pytest.raises(REFUSED):
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
        good = site.written + 1  # under load there were more than two
        while site.written < good:
            site.wrote.clear()
            async with asyncio.timeout(SECONDS):
                await site.wrote.wait()
        await server.permit(PRICING)
        assert await asyncio.to_thread(served_serial, server.port) != first
    assert "was not renewed, trying again" in caplog.text
