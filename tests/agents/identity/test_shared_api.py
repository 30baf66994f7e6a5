"""One Workload API for several identities of a process: one stream of each kind, and to each identity what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from support.callout import DOMAIN, NAMES
from support.lab import until
from support.several import SeveralSvids, several_svids
from support.workload_api import Rotations, short_folder

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.identity.shared_api import SharedWorkloadApi
from sealbus.agents.identity.workload_api import Endpoint
from sealbus.bus.background import Background
from sealbus.envelopes.errors import IdentityUnavailable

pytestmark = pytest.mark.workload_api

TWO = ("pricing", "inventory")


@dataclass(kw_only=True)
class Shared:
    authority: DevelopmentAuthority
    served: SeveralSvids
    api: SharedWorkloadApi
    stack: AsyncExitStack

    async def identity(self, name: str, *, patient: bool = False, deadline: float = 60) -> WorkloadIdentity:
        return await self.stack.enter_async_context(
            WorkloadIdentity.connect(self.api, spiffe_id=NAMES.id_of(name), deadline=deadline, patient=patient)
        )

    def declared(self, name: str) -> DeclaredIdentity:
        return DeclaredIdentity(self.authority, NAMES.id_of(name), x509_ttl=3_600, jwt_ttl=300)


@asynccontextmanager
async def shared(*names: str) -> AsyncIterator[Shared]:
    authority = DevelopmentAuthority(DOMAIN)
    with short_folder() as folder:
        async with several_svids(folder, authority, *names) as served, Background() as group:
            api = SharedWorkloadApi(Endpoint.find(served.address))
            running = group.create_task(api.run())
            async with AsyncExitStack() as stack:
                yield Shared(authority=authority, served=served, api=api, stack=stack)
            running.cancel()


async def test_each_has_its_own_svids_and_key_from_one_stream() -> None:
    async with shared(*TWO) as site:
        both = [await site.identity(name) for name in TWO]
        assert site.served.streams == 1
        for name, identity in zip(TWO, both, strict=True):
            assert identity.spiffe_id == identity.x509().spiffe_id == identity.sealer().iss == NAMES.id_of(name)
        assert both[0].x509().key != both[1].x509().key
        assert both[0].status().thumbprint != both[1].status().thumbprint


async def test_one_that_comes_later_gets_what_the_stream_gave_last() -> None:
    async with shared(*TWO) as site:
        await site.identity("pricing")
        later = await site.identity("inventory")
        assert later.x509().spiffe_id == NAMES.id_of("inventory")
        assert site.served.streams == 1


async def test_a_renewal_of_one_is_none_of_the_other() -> None:
    async with shared(*TWO) as site:
        pricing, inventory = [await site.identity(name) for name in TWO]
        changes, others = Rotations(pricing), Rotations(inventory)
        before = inventory.x509()
        site.served.identities[str(NAMES.id_of("pricing"))].renew()
        await changes.next()
        assert others.count == 0
        assert inventory.x509() is before


async def test_an_svid_that_is_given_no_more_is_not_used_and_comes_back() -> None:
    async with shared(*TWO) as site:
        pricing, inventory = [await site.identity(name) for name in TWO]
        changes = Rotations(pricing)
        site.served.remove("pricing")
        await changes.next()
        for use in (pricing.x509, pricing.sealer):
            with pytest.raises(IdentityUnavailable, match=r"agent/inventory, not spiffe://example\.org/agent/pricing"):
                use()
        assert inventory.sealer().iss == NAMES.id_of("inventory")
        site.served.add(site.declared("pricing"))
        await until(lambda: bool(pricing.status().x509_not_after and pricing.status().jwt_expires))
        assert pricing.x509().spiffe_id == NAMES.id_of("pricing")
        assert pricing.sealer().iss == NAMES.id_of("pricing")


async def test_one_that_is_not_given_is_refused_at_once_or_awaited() -> None:
    async with shared("pricing") as site:
        with pytest.raises(IdentityUnavailable, match=r"not spiffe://example\.org/agent/inventory"):
            await site.identity("inventory")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(site.identity("inventory", patient=True))
            await site.identity("pricing")
            site.served.add(site.declared("inventory"))
        assert waiting.result().x509().spiffe_id == NAMES.id_of("inventory")


async def test_a_stream_that_ends_is_opened_again_for_all() -> None:
    """What was known stays in force meanwhile."""
    async with shared(*TWO) as site:
        pricing, inventory = [await site.identity(name) for name in TWO]
        served = site.served
        kept, served.identities = served.identities, {}
        served.add(site.declared("pricing"))
        await until(lambda: bool(inventory.status().failure))
        assert pricing.x509().spiffe_id == NAMES.id_of("pricing")
        served.identities.update(kept)
        served.add(kept[str(NAMES.id_of("pricing"))])
        await until(lambda: not inventory.status().failure)
        assert inventory.x509().spiffe_id == NAMES.id_of("inventory")
