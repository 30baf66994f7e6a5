"""Keycloak as a provider of users, and as one that knows agents by their JWT-SVIDs (`make keycloak-test`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import httpx2
import pytest
from spiffe import WorkloadApiClient
from support.issuer import TRUSTS_NOBODY
from support.keycloak import BRIEF_WEB, CRM_API, EDGE_API, EXIT, OTHER_WEB, SHOP_WEB, Keycloak, keycloak
from support.legacy import LegacyApi, OAuth
from support.scenes import LogIns, idps_of, surprises
from support.workload_api import RunningWorkloadApi, short_folder, workload_api

from sealbus.agents.dev.demo.play import SCENES
from sealbus.agents.dev.demo.stage import open_stage
from sealbus.agents.dev.workload_api import DevelopmentAuthority
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.access_token import AccessTokenVerifier
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.jwks import KeySource
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.envelopes.errors import Code
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = [pytest.mark.keycloak, pytest.mark.workload_api, pytest.mark.slow, pytest.mark.timeout(300)]

JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


def now() -> int:
    return time.time_ns() // 1_000


@pytest.fixture(scope="module")
def authority() -> DevelopmentAuthority:
    return DevelopmentAuthority(TrustDomain("example.org"))


@pytest.fixture(scope="module")
def provider(authority: DevelopmentAuthority) -> Iterator[Keycloak]:
    with keycloak(authority.jwt_bundle) as running:
        yield running


@pytest.fixture
async def agents(authority: DevelopmentAuthority) -> AsyncIterator[RunningWorkloadApi]:
    async with workload_api("exit", "crm", authority=authority) as api:
        yield api


async def test_a_users_token_is_taken_and_one_for_somebody_else_is_not(provider: Keycloak) -> None:
    async with KeySource(tls=TRUSTS_NOBODY) as keys:
        row = Issuer(issuer=provider.issuer, audiences=frozenset({EDGE_API}))
        verifier = AccessTokenVerifier([row], keys)
        token = await verifier.verify(await provider.user_token("alice"), now=now())
        assert (token.issuer, token.subject, token.client) == (provider.issuer, "alice", SHOP_WEB)
        assert token.auth_time is not None
        assert token.session != ""
        with pytest.raises(TokenRefused) as caught:
            await verifier.verify(await provider.user_token("alice", OTHER_WEB), now=now())
        assert caught.value.code is Code.TOKEN_AUDIENCE


@pytest.mark.nats
async def test_the_scenes_are_alike_for_its_users(provider: Keycloak) -> None:
    """Among them that alice's update is allowed, carol's denied, and a token for somebody else refused."""

    def at(client: str) -> Callable[[str], Awaitable[str]]:
        return lambda user: provider.user_token(user, client)

    log_ins = await LogIns.at(at(SHOP_WEB), elsewhere=at(OTHER_WEB), brief=at(BRIEF_WEB))
    row = IssuerTable(issuer=provider.issuer, audiences=(EDGE_API,))
    with short_folder() as folder:
        async with open_stage(folder / "demo", engine="embedded", opa=None, issuers=[row]) as stage:
            assert await surprises(stage, SCENES, log_ins) == []
            assert idps_of(stage) == {provider.issuer}
            assert stage.findings == []


async def svid(agents: RunningWorkloadApi, name: str, *audience: str) -> str:
    """Return a JWT-SVID of an agent, as it gets it from its own Workload API."""

    def fetch() -> str:
        with WorkloadApiClient(agents.address(name), default_timeout=10) as client:
            return client.fetch_jwt_svid(set(audience)).token

    return await asyncio.to_thread(fetch)


def authenticated(text: str, **form: str) -> dict[str, str]:
    """Return `form` with a JWT-SVID as the client's authentication."""
    return {**form, "client_assertion_type": JWT_SPIFFE, "client_assertion": text}


async def test_the_exits_jwt_svid_authenticates_it(provider: Keycloak, agents: RunningWorkloadApi) -> None:
    text = await svid(agents, "exit", provider.issuer)
    answer = await provider.ask(authenticated(text, grant_type="client_credentials"))
    assert answer.status_code == 200, answer.text
    async with KeySource(tls=TRUSTS_NOBODY) as keys:
        row = Issuer(issuer=provider.issuer, audiences=frozenset({CRM_API}))
        token = await AccessTokenVerifier([row], keys).verify(answer.json()["access_token"], now=now())
    assert token.client == EXIT


@pytest.mark.parametrize("wrong", ["workload", "audience", "authority", "type"])
async def test_no_other_jwt_svid_does(wrong: str, provider: Keycloak, agents: RunningWorkloadApi) -> None:
    form = {"grant_type": "client_credentials", "client_id": EXIT}
    if wrong == "authority":
        async with workload_api("exit") as others:
            form = authenticated(await svid(others, "exit", provider.issuer), **form)
    else:
        name = "crm" if wrong == "workload" else "exit"
        audience = provider.token_endpoint if wrong == "audience" else provider.issuer
        form = authenticated(await svid(agents, name, audience), **form)
    if wrong == "type":
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    answer = await provider.ask(form)
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] in ("invalid_client", "unauthorized_client")


async def test_a_rotated_key_of_the_trust_domain_authenticates(
    provider: Keycloak, agents: RunningWorkloadApi, authority: DevelopmentAuthority
) -> None:
    authority.prepare_jwt()
    authority.activate_jwt()
    text = await svid(agents, "exit", provider.issuer)
    # It looks for a new key only in another second than before, and nobody is told.
    async with asyncio.timeout(20):
        while (await provider.ask(authenticated(text, grant_type="client_credentials"))).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_users_token_is_exchanged_for_one_that_the_legacy_service_takes(
    provider: Keycloak, agents: RunningWorkloadApi
) -> None:
    asked = {
        "grant_type": TOKEN_EXCHANGE, "subject_token_type": ACCESS_TOKEN, "audience": CRM_API,
        "requested_token_type": ACCESS_TOKEN,
    }  # fmt: skip
    text = await svid(agents, "exit", provider.issuer)
    answer = await provider.ask(authenticated(text, subject_token=await provider.user_token("alice"), **asked))
    assert (answer.status_code, answer.json().get("issued_token_type")) == (200, ACCESS_TOKEN)
    async with (
        LegacyApi(OAuth(provider.issuer, CRM_API)) as legacy,
        httpx2.AsyncClient(trust_env=False) as http,
    ):
        fields = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert (await http.get(f"{legacy.url}/customers/42", headers=fields)).json()["seen_by"] == "alice"
        assert legacy.received[0].caller["azp"] == EXIT
        # The user's own token opens nothing there.
        fields = {"Authorization": f"Bearer {await provider.user_token('alice')}"}
        assert (await http.get(f"{legacy.url}/customers/42", headers=fields)).status_code == 401
    # The exit must be in the audience of what it exchanges.
    other = await provider.user_token("alice", OTHER_WEB)
    refused = await provider.ask(authenticated(text, subject_token=other, **asked))
    assert (refused.status_code, "access_token" in refused.json()) == (403, False)
