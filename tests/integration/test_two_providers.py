"""Two certified providers at one edge, ours and a partner's, and the starter policy: who of each may do what."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.edge import ENDS_SOON
from support.issuer import TRUSTS_NOBODY, new_key
from support.oidc_provider import CLIENT, ES256_API, EXIT, OidcProvider

from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.oauth.client_authentication import PrivateKeyJwt
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.settings.schema import EdgeTable
from sealbus.bus.clocks import wall_clock
from sealbus.policies.bundle.files import STARTER
from sealbus.testing import TestBus

pytestmark = pytest.mark.idp
READ = "/v1/calls/inventory/read"
KNOWN = {
    "mia@partner.example": {"customers": {"acme": True}},
    EXIT: {"type": "client", "customers": {"acme": True}},
    f"{EXIT}@partner.example": {"type": "client", "customers": {}},
}


@dataclass(kw_only=True)
class Site:
    bus: TestBus
    home: OidcProvider
    partner: OidcProvider
    http: httpx2.AsyncClient

    async def read(self, token: str) -> tuple[int, dict[str, Any]]:
        """Read item 42, which is alice's and belongs to acme; return the status, and the user that was decided about."""
        fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        answer = await self.http.post(READ, content=b'{"item_id": "42"}', headers=fields)
        [*_, decision] = await self.bus.decisions("inventory.read")
        assert decision.input is not None
        document = json.loads(decision.input)
        return answer.status_code, document["context"]["user"] | {"reasons": decision.reasons}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    policy = shutil.copytree(STARTER, tmp_path / "policy")
    users = policy / "sealbus" / "registry" / "users" / "data.json"
    users.write_text(json.dumps(json.loads(users.read_text()) | KNOWN))
    async with (
        OidcProvider({"ec-1": ("ES256", new_key())}) as home,
        OidcProvider({"ec-1": ("ES256", new_key())}) as partner,
        TestBus(inventory.agent, pricing.agent, policy=policy) as bus,
    ):
        rows: list[dict[str, object]] = [
            {"issuer": home.issuer, "audiences": [ES256_API]},
            {"issuer": partner.issuer, "audiences": [ES256_API], "domain": "partner.example"},
        ]
        table = EdgeTable.model_validate(
            {"address": "127.0.0.1:0", "resource": ES256_API, "actions": ["inventory.*"], "issuers": rows}
        )
        node = (await bus.client("edge")).node
        async with (
            serve_edge(table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as edge,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", trust_env=False, timeout=60) as http,
        ):
            yield Site(bus=bus, home=home, partner=partner, http=http)


async def test_users_of_both_are_told_apart(site: Site) -> None:
    status, user = await site.read(await site.home.user_token("alice", ES256_API))
    assert (status, user["id"], user["type"], user["domain"]) == (200, "alice", "user", "")
    assert (user["client"], set(user["scope"])) == (CLIENT["id"], {"read", "write"})

    status, user = await site.read(await site.partner.user_token("mia", ES256_API))
    assert (status, user["id"], user["type"]) == (200, "mia@partner.example", "user")
    assert (user["domain"], user["idp"]) == ("partner.example", site.partner.issuer)
    assert (user["client"], user["scope"]) == (f"{CLIENT['id']}@partner.example", [])

    status, user = await site.read(await site.partner.user_token("alice", ES256_API))
    assert (status, user["id"], user["reasons"]) == (403, "alice@partner.example", ("not_owner", "unknown_user"))


async def test_clients_that_act_for_themselves_are_known_as_that(site: Site) -> None:
    """Client credentials by a shared secret and by `private_key_jwt`, here and at the partner."""
    status, user = await site.read(await site.home.client_token(ES256_API))
    assert (status, user["id"], user["type"]) == (403, CLIENT["id"], "client")
    assert user["reasons"] == ("not_owner", "unknown_user")
    for provider, domain, status, reasons in (
        (site.home, "", 200, ()),
        (site.partner, "partner.example", 403, ("not_owner",)),
    ):
        found, user = await site.read(await _by_key(provider))
        assert (found, user["type"], user["domain"], user["reasons"]) == (status, "client", domain, reasons)
        assert user["id"] == user["client"] == (f"{EXIT}@{domain}" if domain else EXIT)


async def _by_key(provider: OidcProvider) -> str:
    form = {"grant_type": "client_credentials", "resource": ES256_API, "scope": "read"}
    client = PrivateKeyJwt(EXIT, provider.exit_key)
    sent, fields = await client.sign(form, issuer=provider.issuer, now=wall_clock())
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.post(f"{provider.issuer}/token", data=sent, headers=fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])
