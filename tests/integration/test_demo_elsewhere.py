"""The demonstration's scenes for users of a certified provider, and of a partner's beside it, at one edge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.issuer import new_key
from support.oidc_provider import ES256_API, LEGACY_API, OidcProvider
from support.scenes import ELSEWHERE, LEFT_OUT, USERS, LogIns, idps_of, surprises
from support.workload_api import short_folder

from sealbus.agents.dev.demo.attackers import ATTACKERS
from sealbus.agents.dev.demo.people import PEOPLE
from sealbus.agents.dev.demo.play import SCENES
from sealbus.agents.dev.demo.stage import Stage, open_stage
from sealbus.agents.runtime.settings.schema import IssuerTable

pytestmark = [pytest.mark.idp, pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow, pytest.mark.timeout(120)]


async def log_ins(provider: OidcProvider) -> LogIns:
    tokens = {user: await provider.user_token(user, ES256_API) for user in USERS}
    return LogIns(tokens, elsewhere=await provider.user_token("alice", LEGACY_API))


@asynccontextmanager
async def stage_for(*providers: OidcProvider) -> AsyncIterator[Stage]:
    issuers = [IssuerTable(issuer=one.issuer, audiences=(ES256_API,)) for one in providers]
    with short_folder() as folder:
        async with open_stage(folder / "demo", engine="embedded", opa=None, issuers=issuers) as stage:
            yield stage


def provider() -> OidcProvider:
    return OidcProvider({"ec-1": ("ES256", new_key("ES256"))})


async def test_the_scenes_are_alike_for_users_of_the_home_and_of_the_partner_provider() -> None:
    async with provider() as home, provider() as partner, stage_for(home, partner) as stage:
        # Those in which the shop itself is changed are played once, and last.
        once = [scene for scene in ELSEWHERE if scene in (*PEOPLE, *ATTACKERS)]
        assert await surprises(stage, once, await log_ins(partner)) == []
        assert idps_of(stage) == {partner.issuer}
        assert await surprises(stage, ELSEWHERE, await log_ins(home)) == []
        assert idps_of(stage) == {partner.issuer, home.issuer}
        assert stage.findings == []


async def test_a_provider_that_the_edge_does_not_know_opens_nothing() -> None:
    async with provider() as home, provider() as stranger, stage_for(home) as stage:
        found = dict(await surprises(stage, ELSEWHERE[:3], await log_ins(stranger)))
        assert {name: getattr(got, "code", "") for name, got in found.items()} == {
            scene.name: "unknown_issuer" for scene in ELSEWHERE[:3]
        }


def test_what_is_left_out_is_there() -> None:
    assert set(LEFT_OUT) < {scene.name for scene in SCENES}
    assert len(ELSEWHERE) + len(LEFT_OUT) == len(SCENES)
