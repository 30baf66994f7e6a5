"""Keycloak as a provider of users, and as one that knows the exit by its JWT-SVID (`make keycloak-test`)."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from spiffe import WorkloadApiClient
from support.desk import PAGE, Site, site
from support.issuer import PATIENT, TRUSTS_NOBODY
from support.keycloak import BRIEF_WEB, CRM_API, EDGE_API, EXIT, OTHER_WEB, SHOP_WEB, Keycloak, keycloak, spiffe_bundle
from support.legacy import LegacyApi, OAuth
from support.scenes import LogIns, idps_of, surprises
from support.spire import entry, spire
from support.workload_api import RunningWorkloadApi, short_folder, workload_api

from sealbus.agents.dev.demo.play import SCENES
from sealbus.agents.dev.demo.stage import open_stage
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.envelopes.errors import Code
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = [pytest.mark.keycloak, pytest.mark.workload_api, pytest.mark.slow]

JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
FOUND_SECONDS = 30
"""Keycloak looks for a key that it does not know at most once in ten seconds, and nobody is told."""


def now() -> int:
    return time.time_ns() // 1_000


@dataclass
class TrustDomainKeys:
    """The bundle of the trust domain as Keycloak can read it: that of `authority`, until a test changes it."""

    authority: DevelopmentAuthority
    kept: Path
    """The file with that authority, for a development environment to be of the same."""
    _other: Callable[[], bytes] | None = None

    def bundle(self) -> bytes:
        return self._other() if self._other else spiffe_bundle(self.authority)

    @contextmanager
    def changed(self, bundle: Callable[[], bytes]) -> Iterator[None]:
        self._other = bundle
        try:
            yield
        finally:
            self._other = None


@pytest.fixture(scope="module")
def published() -> Iterator[TrustDomainKeys]:
    with short_folder() as folder:
        file = folder / "authority.json"
        yield TrustDomainKeys(DevelopmentAuthority.open(file, TrustDomain("example.org")), file)


@pytest.fixture(scope="module")
def provider(published: TrustDomainKeys) -> Iterator[Keycloak]:
    with keycloak(published.bundle) as running:
        yield running


@pytest.fixture
async def agents(published: TrustDomainKeys) -> AsyncIterator[RunningWorkloadApi]:
    async with workload_api("exit", "crm", authority=published.authority) as api:
        yield api


async def test_a_users_token_is_taken_and_one_for_somebody_else_is_not(provider: Keycloak) -> None:
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        row = Issuer(issuer=provider.issuer, audiences=frozenset({EDGE_API}), client_claim="azp")
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
    row = IssuerTable(issuer=provider.issuer, audiences=(EDGE_API,), client_claim="azp")
    with short_folder() as folder:
        async with open_stage(folder / "demo", engine="embedded", opa=None, issuers=[row]) as stage:
            assert await surprises(stage, SCENES, log_ins) == []
            assert idps_of(stage) == {provider.issuer}
            assert stage.findings == []


async def svid(address: str, *audience: str) -> str:
    """Return a JWT-SVID from the Workload API at `address`."""

    def fetch() -> str:
        with WorkloadApiClient(address, default_timeout=10) as client:
            return client.fetch_jwt_svid(set(audience)).token

    return await asyncio.to_thread(fetch)


def authenticated(text: str, **form: str) -> dict[str, str]:
    """Return `form` with a JWT-SVID as the client's authentication."""
    return {**form, "client_assertion_type": JWT_SPIFFE, "client_assertion": text}


async def test_the_exits_jwt_svid_authenticates_it(provider: Keycloak, agents: RunningWorkloadApi) -> None:
    text = await svid(agents.address("exit"), provider.issuer)
    answer = await provider.ask(authenticated(text, grant_type="client_credentials"))
    assert answer.status_code == 200, answer.text
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        row = Issuer(issuer=provider.issuer, audiences=frozenset({CRM_API}), client_claim="azp")
        token = await AccessTokenVerifier([row], keys).verify(answer.json()["access_token"], now=now())
    # Nothing of it says that it is no user's.
    assert (token.client, token.subject == EXIT, token.type) == (EXIT, False, None)


@pytest.mark.parametrize("wrong", ["workload", "audience", "authority", "type"])
async def test_no_other_jwt_svid_does(wrong: str, provider: Keycloak, agents: RunningWorkloadApi) -> None:
    form = {"grant_type": "client_credentials", "client_id": EXIT}
    if wrong == "authority":
        async with workload_api("exit") as others:
            form = authenticated(await svid(others.address("exit"), provider.issuer), **form)
    else:
        name = "crm" if wrong == "workload" else "exit"
        audience = provider.token_endpoint if wrong == "audience" else provider.issuer
        form = authenticated(await svid(agents.address(name), audience), **form)
    if wrong == "type":
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    answer = await provider.ask(form)
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] in ("invalid_client", "unauthorized_client")


async def test_only_what_is_for_the_exit_is_exchanged(provider: Keycloak, agents: RunningWorkloadApi) -> None:
    text = await svid(agents.address("exit"), provider.issuer)
    refused = await provider.ask(
        authenticated(
            text,
            grant_type=TOKEN_EXCHANGE,
            subject_token=await provider.user_token("alice", OTHER_WEB),
            subject_token_type=ACCESS_TOKEN,
            audience=CRM_API,
        )
    )
    assert (refused.status_code, refused.json()["error"]) == (403, "access_denied")


@dataclass(frozen=True)
class Shown:
    """The settings of docs/legacy.md, with Keycloak and the service in place of the URLs on the page."""

    api: dict[str, Any]
    users: IssuerTable

    @classmethod
    def of(cls, provider: Keycloak, legacy: LegacyApi) -> Shown:
        settings = PAGE.example("keycloak settings")
        for url, real in (("https://crm.example.com", legacy.url), ("https://login.example.com", provider.origin)):
            assert url in settings
            settings = settings.replace(url, real)
        said = tomllib.loads(settings)
        [row] = said["edge"]["issuers"]
        users = IssuerTable(audiences=(said["edge"]["resource"],), **row)
        return cls(api=said["egress"]["apis"]["crm"], users=users)


@asynccontextmanager
async def desk(published: TrustDomainKeys, provider: Keycloak, shown: Shown) -> AsyncIterator[Site]:
    """Run the desk and the exit, who are of the trust domain that Keycloak knows."""
    with short_folder() as folder:
        (folder / "dev").mkdir(mode=0o700)
        shutil.copy(published.kept, folder / "dev" / "authority.json")
        async with site(folder, provider, {"crm": shown.api}, users=shown.users) as running:
            yield running


@pytest.mark.nats
async def test_the_legacy_service_sees_the_user(provider: Keycloak, published: TrustDomainKeys) -> None:
    async with (
        LegacyApi(OAuth(provider.issuer, CRM_API)) as legacy,
        desk(published, provider, Shown.of(provider, legacy)) as running,
    ):
        alice = await provider.user_token("alice")
        for _ in range(2):
            seen = await running.look("42", alice)
            assert (seen.status_code, seen.json()["status"]) == (200, 200), seen.text
            assert json.loads(seen.json()["text"])["seen_by"] == "alice"
        denied = await running.look("42", await provider.user_token("carol"))
        assert (denied.status_code, denied.json()["code"]) == (403, "denied")
        assert [(one.subject, one.caller["azp"]) for one in legacy.received] == [("alice", EXIT)] * 2
        assert len({one.caller["jti"] for one in legacy.received}) == 1, "got once"
        decided = await running.decisions("exit.crm")
        assert [(one.allow, one.reasons) for one in decided] == [(True, ()), (True, ()), (False, ("not_owner",))]
        # The user's own token opens nothing there.
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            fields = {"Authorization": f"Bearer {alice}"}
            assert (await http.get(f"{legacy.url}/customers/42", headers=fields)).status_code == 401


@pytest.mark.nats
async def test_a_token_that_was_revoked_is_not_exchanged(provider: Keycloak, published: TrustDomainKeys) -> None:
    async with (
        LegacyApi(OAuth(provider.issuer, CRM_API)) as legacy,
        desk(published, provider, Shown.of(provider, legacy)) as running,
    ):
        alice = await provider.user_token("alice")
        await provider.revoke(alice, SHOP_WEB)
        # The edge verifies tokens by itself, and so does not know.
        assert (await running.look("42", alice)).status_code == 502
        assert await running.outcomes("exit.crm", 1) == ["user_login_required"]
        assert legacy.received == []
        assert (await running.look("42", await provider.user_token("alice"))).status_code == 200


@pytest.mark.nats
async def test_a_key_that_keycloak_has_not_found_yet(provider: Keycloak, published: TrustDomainKeys) -> None:
    """The exit as itself, by client credentials."""
    async with LegacyApi(OAuth(provider.issuer, CRM_API)) as legacy:
        shown = Shown.of(provider, legacy)
        api = {**shown.api, "grant": "client_credentials", "users": []}
        itself = Shown(api=api, users=shown.users.model_copy(update={"keep_tokens": False}))
        async with desk(published, provider, itself) as running:
            alice, authority = await provider.user_token("alice"), running.dev.authority
            authority.prepare_jwt()
            authority.activate_jwt()
            assert (await running.look("42", alice)).status_code == 502
            assert await running.outcomes("exit.crm", 1) == ["token_unavailable"]
            with published.changed(lambda: spiffe_bundle(authority)):
                async with asyncio.timeout(FOUND_SECONDS):
                    while (await running.look("42", alice)).status_code != 200:  # noqa: ASYNC110  it tells nobody what it has read
                        await asyncio.sleep(0.5)
        [seen] = legacy.received
        assert (seen.caller["azp"], seen.subject in ("alice", EXIT)) == (EXIT, False)


@pytest.mark.spire
async def test_spires_svids_and_bundle(provider: Keycloak, published: TrustDomainKeys) -> None:
    """SPIRE's bundle has its X.509 authorities, too; ours stays in it, because Keycloak keeps what it found last."""
    async with spire(entry("spiffe://example.org/agent/exit")) as real:
        text = await svid(real.agent.address, provider.issuer)
        asked = authenticated(text, grant_type="client_credentials")
        assert (await provider.ask(asked)).status_code == 401
        bundle = json.loads(await real.server.bundle(spiffe=True))
        assert {one["use"] for one in bundle["keys"]} == {"jwt-svid", "x509-svid"}
        bundle["keys"] += json.loads(published.bundle())["keys"]
        with published.changed(lambda: json.dumps(bundle).encode()):
            async with asyncio.timeout(FOUND_SECONDS):
                while (await provider.ask(asked)).status_code != 200:  # noqa: ASYNC110  it tells nobody what it has read
                    await asyncio.sleep(0.5)
