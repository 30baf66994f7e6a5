"""What docs/federation.md shows is so: tokens in the form of clouds and CI are taken as its rows say, and by its registry."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import httpx2
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.pages import Page
from support.token_site import Site, token_site

from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.settings.schema import Document, EdgeTable
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.request import Caller, Request, input_document
from sealbus.policies.engines.embedded import EmbeddedEngine

PAGE = Page("federation.md")
RESOURCE = "https://api.example.org"
BUILD: dict[str, Any] = {
    "sub": "repo:acme/shop:ref:refs/heads/main", "aud": RESOURCE, "client_id": None, "jti": "build-7",
    "repository": "acme/shop", "repository_owner": "acme", "repository_owner_id": "65", "ref": "refs/heads/main",
    "actor": "mona", "header": {"typ": "JWT", "x5t": "eA"},
}  # fmt: skip
POD: dict[str, Any] = {
    "sub": "system:serviceaccount:shop:reports", "aud": [RESOURCE], "client_id": None, "header": {"typ": None},
    "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "reports", "uid": "c0"}},
}  # fmt: skip
FUNCTION: dict[str, Any] = {
    "sub": "1133", "azp": "1133", "aud": RESOURCE, "client_id": None, "jti": None, "header": {"typ": "JWT"},
    "email": "reports@acme-prod.iam.gserviceaccount.com", "email_verified": True,
}  # fmt: skip


async def read(site: Site, token: str) -> httpx2.Response:
    url = f"http://127.0.0.1:{site.edge.port}/v1/calls/inventory/read"
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=TRUSTS_NOBODY) as http:
        return await http.post(url, content=b'{"item_id": "42"}', headers=fields)


async def test_from_the_settings_to_the_record_of_a_workload(tmp_path: Path) -> None:
    async with LoopbackIssuer() as google:

        def table(github: LoopbackIssuer, cluster: LoopbackIssuer) -> EdgeTable:
            return PAGE.edge(
                "workloads",
                token_actions_githubusercontent_com=github.issuer,
                k8s_example_net=cluster.issuer,
                accounts_google_com=google.issuer,
            )

        policy = PAGE.policy(tmp_path / "policy", "users", "registry")
        async with (
            EmbeddedEngine.of_folder(policy) as engine,
            token_site(inventory.agent, pricing.agent, engine=engine, table=table) as site,
        ):
            github, cluster = site.issuer, site.partner
            assert (await read(site, github.token(**BUILD))).status_code == 200
            [decision] = await site.bus.decisions("inventory.read")
            assert PAGE.is_record_of("record of workloads", decision, issuer=github.issuer)
            for token, who in (
                (github.token(**BUILD | {"sub": "repo:acme/shop:ref:refs/heads/try"}), "@ci.example.org"),
                (cluster.token(**POD), "system:serviceaccount:shop:reports@k8s.example.net"),
                (google.token(**FUNCTION), '"id":"1133@gcp.example.org"'),
            ):
                assert (await read(site, token)).status_code == 403
                [*_, decision] = await site.bus.decisions("inventory.read")
                assert "unknown_user" in decision.reasons
                assert decision.input is not None
                assert who in decision.input.decode()
            # Strangers do not come as far as that.
            decided = len(await site.bus.decisions("inventory.read"))
            for token in (
                github.token(**BUILD | {"repository_owner_id": "66"}),
                github.token(**BUILD | {"header": {"typ": "at+jwt"}}),
                google.token(**FUNCTION | {"email": "other@mallory.iam.gserviceaccount.com"}),
                google.token(**FUNCTION | {"email": None}),
            ):
                answer = await read(site, token)
                assert (answer.status_code, answer.json()["code"]) == (401, "bad_token")
            assert len(await site.bus.decisions("inventory.read")) == decided


async def test_a_partners_agent_is_called_and_granted_as_it_says(tmp_path: Path) -> None:
    said = tomllib.loads(PAGE.example("names"))
    document = Document.model_validate({"nats": ["tls://127.0.0.1:4222"], "policy": {"engine": "embedded"}, **said})
    assert document.agents.__pydantic_extra__ is not None
    supplier = SpiffeId("spiffe://partner.example/agent/supplier")
    names = Names(document.trust_domain, table=document.agents.__pydantic_extra__)
    assert names.id_of("supplier") == supplier
    policy = PAGE.policy(tmp_path / "policy", "agents", "agents")
    asked = [
        (action, one)
        for action in ("pricing.quote", "pricing.appraise")
        for one in (str(supplier), "spiffe://example.org/agent/supplier", "spiffe://other.example/agent/supplier")
    ]
    documents = [
        input_document(
            Request(
                caller=Caller(subject=one, trust_domain=SpiffeId(one).trust_domain.name, chain=(one,)),
                action=action,
                time=0,
                nats_subject=f"call.{action}",
                kind="call",
                message_id="0",
            )
        )
        for action, one in asked
    ]
    async with EmbeddedEngine.of_folder(policy) as engine:
        answers = await engine.decide(documents)
    assert [isinstance(one, Decision) and one.allow for one in answers] == [True, *[False] * 5]
