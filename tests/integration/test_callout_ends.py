"""How connections of the auth callout end and stay: without a responder, with their certificates, at a reload."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from support.callout import NAMES, callout_site, impatient, let_in, policy_folder
from support.lab import until

from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.limits import SECOND

pytestmark = [pytest.mark.nats]

INVENTORY = str(NAMES.id_of("inventory"))


async def test_without_a_responder_nobody_is_let_in_and_who_is_there_stays(tmp_path: Path) -> None:
    async with callout_site(tmp_path, conf=impatient(tmp_path)) as site, site.raw("inventory") as live:
        (responder,) = site.responders
        await responder.stop()
        assert responder.callout.problem
        assert not await let_in(site, site.ca.issue(INVENTORY))
        with pytest.raises(BusUnavailable, match=r"did not answer|no answer in time"):
            async with site.connection("pricing"):
                pass
        assert await live.may_publish("audit.inventory")
        await site.respond()
        assert await let_in(site, site.ca.issue(INVENTORY))
        assert await live.may_publish("audit.inventory")


async def test_one_responder_of_two_is_enough(tmp_path: Path) -> None:
    async with callout_site(tmp_path, responders=2) as site:
        for _ in range(8):
            assert await let_in(site, site.ca.issue(INVENTORY))
        asked = [one.counters.render().count('outcome="allowed"') for one in site.responders]
        assert asked == [1, 1], "both have answered"
        await site.responders[0].stop()
        for _ in range(4):
            assert await let_in(site, site.ca.issue(INVENTORY))


async def test_a_connection_ends_with_its_certificate(tmp_path: Path) -> None:
    """The server lets a TLS connection live on past its certificate's end; the user JWT does not."""
    async with callout_site(tmp_path) as site:
        svid = site.ca.issue(INVENTORY, life=6.0)
        async with site.raw("inventory", svid=svid) as client:
            assert await client.may_publish("audit.inventory")
            await client.closed()
            assert time.time() > svid.not_after / SECOND - 1.5
            assert any("expired" in one.lower() for one in client.errors)


async def test_a_connection_of_ours_is_renewed_before_that(tmp_path: Path) -> None:
    async with callout_site(tmp_path) as site:
        identity = site.identity(NAMES.id_of("inventory"), life=60.0)
        async with site.connection("inventory", identity=identity) as connection:
            first = connection.link
            identity.rotate(life=3600.0)
            await until(lambda: connection.connected and connection.link is not first)
            await until(lambda: not first.alive)
            assert connection.counters.render().count("sealbus_bus_rotations_total 1") == 1
            assert "sealbus_bus_reconnects_total" not in connection.counters.render()


async def test_a_reload_keeps_who_is_still_allowed_and_ends_who_is_not(tmp_path: Path) -> None:
    policy = policy_folder(tmp_path / "policy")
    async with (
        callout_site(tmp_path / "site", policy=policy) as site,
        site.raw("inventory") as inventory,
        site.raw("pricing") as pricing,
    ):
        await site.reload()
        assert await inventory.may_publish("audit.inventory")
        assert await pricing.may_publish("audit.pricing")
        # Revoked in the policy: the next reload asks again, and this responder knows better.
        site.policy = policy_folder(tmp_path / "revoked", revoked={"agents": {INVENTORY: True}})
        await site.respond()
        await site.responders[0].stop()
        await site.reload()
        await inventory.closed()
        assert await pricing.may_publish("audit.pricing")
        assert site.responders[1].codes == [Code.DENIED]
        assert site.responders[1].refused[0].reasons == ("revoked_agent",)


async def test_responders_are_replaced_one_by_one_and_nobody_is_refused(tmp_path: Path) -> None:
    async with callout_site(tmp_path, responders=2) as site:
        stop = asyncio.Event()
        came: list[bool] = []

        async def connect() -> None:
            while not stop.is_set():
                came.append(await let_in(site))

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(connect())
            for old in tuple(site.responders):
                await site.respond()
                seen = len(came)
                await until(lambda seen=seen: len(came) > seen + 6)  # type: ignore[misc]  # bound now
                await old.stop()
            stop.set()
        assert all(came)
