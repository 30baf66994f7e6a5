"""What docs/edge.md shows at its beginning is so: its settings are run, and its record comes out."""

from __future__ import annotations

import json

import httpx2
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.pages import Page
from support.token_site import token_site

from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.settings.schema import EdgeTable
from sealbus.policies.engines.embedded import EmbeddedEngine

PAGE = Page("edge.md")


async def test_from_the_settings_to_the_record() -> None:
    def table(home: LoopbackIssuer, partner: LoopbackIssuer) -> EdgeTable:
        del partner
        return PAGE.edge("users", idp_example_org=home.issuer)

    async with (
        EmbeddedEngine.of_folder() as engine,
        token_site(inventory.agent, pricing.agent, engine=engine, table=table) as site,
        httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{site.edge.port}", trust_env=False, verify=TRUSTS_NOBODY
        ) as http,
    ):
        answers = {}
        for user in ("alice", "carol"):
            token = site.issuer.token(
                sub=user, aud="https://api.example.org", sid="s-1", scope="read", department="tools", phone="1"
            )
            answers[user] = await http.post(
                "/v1/calls/inventory/read", json={"item_id": "42"}, headers={"Authorization": f"Bearer {token}"}
            )
        assert (answers["alice"].status_code, answers["alice"].json()["item_id"]) == (200, "42")
        assert (answers["carol"].status_code, answers["carol"].json()["code"]) == (403, "denied")
        first, second = await site.bus.decisions("inventory.read")
        assert PAGE.is_record_of("record", first, issuer=site.issuer.issuer)
        assert (second.allow, second.reasons) == (False, ("not_owner",))
        transactions = [json.loads(one.input or b"{}")["context"]["user"]["txn"] for one in (first, second)]
        assert transactions == [answer.headers["x-request-id"] for answer in answers.values()]
