"""Two tenants, each with two accounts: nothing crosses from one to the other, and each account bounds its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.callout import NAMES, CalloutSite, callout_site, policy_folder

from sealbus.envelopes.encoding.strict_json import Json

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[CalloutSite]:
    """`pricing` and its operator are of the tenant acme, all others of the default one."""
    workloads: dict[str, Json] = {
        str(NAMES.id_of(name)): {"role": role, "tenant": "acme"}
        for name, role in (("pricing", "agent"), ("ruler", "operator"), ("buyer", "agent"))
    }
    limits: Json = {"subscriptions": 4, "payload": 1024, "data": -1}
    acme: dict[str, Json] = {"account": "ACME_AGENTS", "streams": "ACME", "limits": limits}
    policy = policy_folder(
        tmp_path / "policy",
        workloads=workloads,
        tenants={"acme": acme},
        agents={str(NAMES.id_of("buyer")): {"actions": {"pricing.quote": True}}},
    )
    async with callout_site(tmp_path / "site", policy=policy) as site:
        yield site


async def test_nothing_crosses_from_tenant_to_tenant(tenants: CalloutSite) -> None:
    async with (
        tenants.raw("pricing") as pricing,
        tenants.raw("inventory") as outside,
        tenants.raw("buyer") as inside,
    ):
        pricing.subscribe("call.pricing.* pricing")
        pricing.subscribe("_INBOX.pricing.>")
        assert await pricing.settle() == []
        outside.publish("call.pricing.quote", b"from outside")
        outside.publish("_INBOX.pricing.reply.aa.1", b"an answer from outside")
        assert await outside.settle() == []
        inside.publish("call.pricing.quote", b"from inside")
        assert await inside.settle() == []
        async with asyncio.timeout(60):
            while not pricing.messages:
                await pricing.settle()
        assert pricing.messages == [("call.pricing.quote", b"from inside")]


async def test_each_tenant_has_its_own_streams(tenants: CalloutSite) -> None:
    await tenants.apply_streams()
    async with tenants.raw("inventory") as outside, tenants.raw("pricing") as pricing:
        assert (await outside.ask("$JS.API.STREAM.LIST"))["total"]
        assert not (await pricing.ask("$JS.API.STREAM.LIST"))["total"]


async def test_an_account_limits_each_of_its_connections(tenants: CalloutSite) -> None:
    async with tenants.raw("pricing") as pricing, tenants.raw("buyer") as buyer:
        for number in range(8_193):
            pricing.subscribe(f"_INBOX.pricing.{number}")
        errors = await pricing.settle()
        assert errors
        assert all("maximum subscriptions exceeded" in one.lower() for one in errors)
        buyer.subscribe("_INBOX.buyer.x")
        assert await buyer.settle() == []


async def test_the_server_leaves_limits_of_a_user_to_its_account(tenants: CalloutSite) -> None:
    """They stand in the JWT; nats-server 2.15 applies them only to JWTs that clients bring themselves.

    Should this fail one day, the comment in deploy/local/nats/nats.conf can go.
    """
    async with tenants.raw("pricing") as pricing:
        for number in range(5):
            pricing.subscribe(f"_INBOX.pricing.{number}")
        assert await pricing.settle() == []
