"""The demonstration's scenes for users of a certified provider, and of a partner's beside it, at one edge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from support.issuer import new_key
from support.oidc_provider import BRIEF_API, ES256_API, LEGACY_API, OidcProvider
from support.scenes import LogIns, idps_of, surprises
from support.workload_api import short_folder

from sealbus.agents.dev.demo.attackers import ATTACKERS
from sealbus.agents.dev.demo.people import PEOPLE, denied
from sealbus.agents.dev.demo.play import SCENES
from sealbus.agents.dev.demo.scene import Outcome
from sealbus.agents.dev.demo.stage import Stage, open_stage
from sealbus.agents.runtime.settings.schema import IssuerTable

DOMAIN = "partner.example"
MANAGES: dict[str, dict[str, bool]] = {"alice": {"acme": True}, "bob": {"acme": True}, "carol": {"globex": True}}
"""Item 42 is of acme. The partner's alice is no owner of what our alice owns."""

pytestmark = [pytest.mark.idp, pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow]


async def log_ins(provider: OidcProvider) -> LogIns:
    def at(resource: str) -> Callable[[str], Awaitable[str]]:
        return lambda user: provider.user_token(user, resource)

    return await LogIns.at(at(ES256_API), elsewhere=at(LEGACY_API), brief=at(BRIEF_API))


@asynccontextmanager
async def stage_for(home: OidcProvider, partner: OidcProvider | None = None) -> AsyncIterator[Stage]:
    audiences = (ES256_API, BRIEF_API)
    issuers = [IssuerTable(issuer=home.issuer, audiences=audiences)]
    if partner is not None:
        row = {"issuer": partner.issuer, "audiences": audiences, "domain": DOMAIN}
        issuers.append(IssuerTable.model_validate(row))
    with short_folder() as folder:
        async with open_stage(folder / "demo", engine="embedded", opa=None, issuers=issuers) as stage:
            yield stage


def admit(users: dict[str, object]) -> None:
    """Add the partner's users to the registry, as docs/partners.md does."""
    users |= {f"{name}@{DOMAIN}": {"customers": customers} for name, customers in MANAGES.items()}


def provider() -> OidcProvider:
    return OidcProvider({"ec-1": ("ES256", new_key("ES256"))})


async def test_the_scenes_are_alike_for_users_of_the_home_and_of_the_partner_provider() -> None:
    async with provider() as home, provider() as partner, stage_for(home, partner) as stage:
        theirs = await log_ins(partner)
        # To the starter policy they are strangers, whatever they are called.
        found = await surprises(stage, PEOPLE[:3], theirs, domain=DOMAIN)
        assert found == [(scene.name, denied("not_owner", "unknown_user")) for scene in PEOPLE[:3]]
        await stage.backstage.change_data("users", admit)
        # Those in which the shop itself is changed are played once, and last.
        assert await surprises(stage, (*PEOPLE, *ATTACKERS), theirs, domain=DOMAIN) == []
        assert idps_of(stage) == {partner.issuer}
        assert await surprises(stage, SCENES, await log_ins(home)) == []
        assert idps_of(stage) == {partner.issuer, home.issuer}
        assert stage.findings == []


async def test_a_provider_that_the_edge_does_not_know_opens_nothing() -> None:
    async with provider() as home, provider() as stranger, stage_for(home) as stage:
        found = await surprises(stage, PEOPLE[:3], await log_ins(stranger))
        assert found == [(scene.name, Outcome(got=401, code="unknown_issuer")) for scene in PEOPLE[:3]]
