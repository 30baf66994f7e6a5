"""What docs/partners.md shows is so: its settings, policy and backend are run, and its records come out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.pages import Page
from support.policy_inputs import closed_policy
from support.token_site import Site, token_site

from sealbus import Client, Denied
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.settings.schema import EdgeTable
from sealbus.envelopes.errors import Code
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.request import Caller, Request, User, input_document
from sealbus.policies.engines.embedded import EmbeddedEngine

PAGE = Page("partners.md")
RESOURCE = "https://api.example.org"
ENDPOINT = "https://edge.example.org/token"


@asynccontextmanager
async def site_of(example: str, tmp_path: Path) -> AsyncIterator[Site]:
    def table(home: LoopbackIssuer, partner: LoopbackIssuer) -> EdgeTable:
        return PAGE.edge(example, idp_example_org=home.issuer, login_partner_example=partner.issuer)

    policy = PAGE.policy(tmp_path / "policy", "users", "registry")
    async with (
        EmbeddedEngine.of_folder(policy) as engine,
        token_site(inventory.agent, pricing.agent, engine=engine, table=table) as site,
    ):
        yield site


async def read(site: Site, token: str, item: str = "42") -> httpx2.Response:
    url = f"http://127.0.0.1:{site.edge.port}/v1/calls/inventory/read"
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=TRUSTS_NOBODY) as http:
        return await http.post(url, content=f'{{"item_id": "{item}"}}'.encode(), headers=fields)


async def test_from_the_settings_to_the_record_of_a_token(tmp_path: Path) -> None:
    async with site_of("tokens", tmp_path) as site:
        said: dict[str, Any] = {
            "aud": RESOURCE,
            "sid": "s-1",
            "client_id": "web",
            "scope": "read write",
            "dept": "buying",
        }
        answer = await read(site, site.partner.token(sub="mia", **said))
        assert (answer.status_code, answer.json()["item_id"]) == (200, "42")
        [decision] = await site.bus.decisions("inventory.read")
        assert PAGE.is_record_of("record of tokens", decision, issuer=site.partner.issuer)
        # Whom the registry does not know, however they are called.
        for name in ("kim", "alice", "reports"):
            assert (await read(site, site.partner.token(sub=name, **said))).status_code == 403
            [*_, decision] = await site.bus.decisions("inventory.read")
            assert "unknown_user" in decision.reasons
        # A client of ours, and the user with the same id.
        for client, status in (("reports", 200), ("web", 403)):
            answer = await read(site, site.issuer.token(sub="reports", aud=RESOURCE, client_id=client), item="77")
            assert answer.status_code == status
        # And nobody of ours is called as one of the partner's.
        answer = await read(site, site.issuer.token(sub="mia@partner.example", aud=RESOURCE))
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_token")


async def test_from_the_settings_to_the_record_of_an_assertion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"Client": Client, "Read": inventory.Read, "Stock": inventory.Stock}
    exec(PAGE.example("backend"), names)  # noqa: S102  it is what the page shows
    async with site_of("assertions", tmp_path) as site:
        bus = await site.bus.client("shop-web")
        async with site.exchange(site.workload()) as exchange:
            # The one part of a client in memory that is not real: its certificate.
            monkeypatch.setattr(bus, "user_context", exchange.user_context)
            stock = await names["stock_for"](site.assertion(aud=ENDPOINT, jti="a-1"), bus)
            assert stock.item_id == "42"
            [decision] = await site.bus.decisions("inventory.read")
            assert PAGE.is_record_of("record of assertions", decision, issuer=site.partner.issuer)
            with pytest.raises(Denied):
                await names["stock_for"](site.assertion(aud=ENDPOINT, jti="a-2", sub="kim"), bus)
        # No access token of this row is taken, for whomever it is.
        for audience in (RESOURCE, ENDPOINT):
            answer = await read(site, site.partner.token(sub="mia", aud=audience))
            assert (answer.status_code, answer.json()["code"]) == (401, "token_audience")


def test_its_settings_are_all_that_a_row_needs() -> None:
    for name in ("tokens", "assertions"):
        rows = EdgeTable.model_validate(tomllib.loads(PAGE.example(name))["edge"]).issuers
        assert [str(row.domain) for row in rows if row.domain is not None] == ["partner.example"]


async def test_the_policy_asks_for_what_it_means(tmp_path: Path) -> None:
    conditions = PAGE.example("policy").replace("\n", "\n\t").strip()
    allow = '{"allow": true, "reasons": [], "obligations": [], "policy": "own"}'
    rules = closed_policy(tmp_path / "policy") / "sealbus" / "authz" / "closed.rego"
    closed = rules.read_text().replace("decide(_) :=", f"decide(request) := {allow} if {{\n\t{conditions}\n}} else :=")
    rules.write_text(closed)
    mia = User(id="mia@partner.example", type="user", domain="partner.example", claims={"department": "buying"})
    asked = [
        (mia, True),
        (User(id="mia", type="user", claims={"department": "buying"}), False),
        (User(id="mia@partner.example", type="client", domain="partner.example", claims=mia.claims), False),
        (User(id="mia@partner.example", type="user", domain="partner.example", claims={"department": "it"}), False),
    ]
    documents = [
        input_document(
            Request(
                caller=Caller(
                    subject="spiffe://example.org/edge",
                    trust_domain="example.org",
                    user=user,
                    chain=("spiffe://example.org/edge",),
                ),
                action="inventory.read",
                time=0,
                nats_subject="call.inventory.read",
                kind="call",
                message_id="0",
            )
        )
        for user, _ in asked
    ]
    async with EmbeddedEngine.of_folder(tmp_path / "policy") as engine:
        answers = await engine.decide(documents)
    assert [isinstance(one, Decision) and one.allow for one in answers] == [allowed for _, allowed in asked]


def test_codes_of_refused_assertions_are_codes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "partners.md").read_text(encoding="utf-8")
    table = text.partition("| an assertion | code, status 400 |")[2].partition("\n\n")[0]
    assert set(re.findall(r"\| `(\w+)` \|$", table, re.MULTILINE)) == {
        Code.BAD_TOKEN, Code.TOKEN_AUDIENCE, Code.TOKEN_EXPIRED, Code.UNKNOWN_ISSUER, Code.REVOKED,
    }  # fmt: skip
