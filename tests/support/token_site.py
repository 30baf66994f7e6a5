"""An edge with its token service behind real mutual TLS, on a bus in memory, with an issuer of ours and one of a partner.

::

    async with token_site(Shop().pricing) as site:
        answer = await site.post(site.form())
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from support.edge import ENDS_SOON, edge_table
from support.engines import ScriptedEngine
from support.identity import StaticIdentity
from support.issuer import AUDIENCE, TRUSTS_NOBODY, LoopbackIssuer
from support.x509 import ThrowawayCa

from sealbus import Agent
from sealbus.agents.edge.edge import RunningEdge, serve_edge
from sealbus.agents.edge.v1.token_service import ACCESS_TOKEN_TYPE, ASSERTION_GRANT, GRANT_TYPE
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.settings.schema import EdgeTable, IssuerTable
from sealbus.agents.sdk.token_exchange import USER_CONTEXT_TYPE, TokenExchange
from sealbus.bus.nats.connection.tls import client_context
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.testing import TestBus

__all__ = ["EDGE", "PARTNER", "TOKEN_ENDPOINT", "WEB", "Site", "token_site"]

EDGE = "spiffe://example.org/edge"
WEB = "spiffe://example.org/agent/shop-web"
TOKEN_ENDPOINT = "https://edge.example/token"
PARTNER = "partner.example"


@dataclass(kw_only=True)
class Site:
    """What a test of the token service holds; `partner` may issue assertions and tokens for users of its domain."""

    bus: TestBus
    ca: ThrowawayCa
    identity: StaticIdentity
    edge: RunningEdge
    issuer: LoopbackIssuer
    partner: LoopbackIssuer
    edge_table: EdgeTable

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.edge.token_port}"

    def workload(self, spiffe_id: str = WEB, ca: ThrowawayCa | None = None) -> StaticIdentity:
        """Return the identity of a workload, by the authority of the edge unless another is given."""
        identity = StaticIdentity(ca or self.ca, spiffe_id)
        identity.anchors = dict(self.identity.anchors)
        identity.renew(3600)
        return identity

    def exchange(self, identity: StaticIdentity, *, edges: tuple[str, ...] = (EDGE,)) -> TokenExchange:
        """Return the client's side of the token service, for `identity`."""
        return TokenExchange(self.url, identity=identity, edges=frozenset(map(SpiffeId, edges)))

    async def post(
        self, form: Mapping[str, str] | bytes, *, edge: RunningEdge | None = None, **fields: Any
    ) -> httpx2.Response:
        """POST to the token service as shop-web; to that of `edge` if it is given."""
        context = client_context(self.workload().x509(), expected=frozenset({SpiffeId(EDGE)}))
        url = f"https://127.0.0.1:{(edge or self.edge).token_port}/token"
        async with httpx2.AsyncClient(verify=context, trust_env=False, timeout=60) as http:
            headers = {"Content-Type": "application/x-www-form-urlencoded", **fields}
            if isinstance(form, bytes):
                return await http.post(url, content=form, headers=headers)
            return await http.post(url, data=dict(form), headers=headers)

    async def public(self, token: str) -> httpx2.Response:
        """Call pricing.quote at the edge, with `token` as a bearer's."""
        url = f"http://127.0.0.1:{self.edge.port}/v1/calls/pricing/quote"
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(trust_env=False, timeout=60, verify=TRUSTS_NOBODY) as http:
            return await http.post(url, content=b'{"item_id": "42"}', headers=headers)

    def form(self, **changes: str | None) -> dict[str, str]:
        """Return the form that exchanges a good access token; `changes` replace its fields, None removes one."""
        form: dict[str, str | None] = {
            "grant_type": GRANT_TYPE,
            "subject_token": self.issuer.token(scope="read write"),
            "subject_token_type": ACCESS_TOKEN_TYPE,
            "requested_token_type": USER_CONTEXT_TYPE,
            **changes,
        }
        return {name: value for name, value in form.items() if value is not None}

    def assertion(self, *, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Return a good assertion of the partner for its user mia; `changes` replace claims, None removes one."""
        claims = {"sub": "mia", "aud": TOKEN_ENDPOINT, "client_id": None, "life": 60, **changes}
        return self.partner.token(header={"typ": "authorization-grant+jwt", **(header or {})}, **claims)

    @staticmethod
    def grant(assertion: str, **changes: str) -> dict[str, str]:
        """Return the form that exchanges `assertion`."""
        return {"grant_type": ASSERTION_GRANT, "assertion": assertion, **changes}

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[RunningEdge]:
        """Run another process of the edge, with the same settings."""
        async with _serving(self.bus, self.identity, self.edge_table) as edge:
            yield edge


@asynccontextmanager
async def token_site(
    *agents: Agent,
    engine: PolicyEngine | None = None,
    table: Callable[[LoopbackIssuer, LoopbackIssuer], EdgeTable] | None = None,
    **row: Any,
) -> AsyncIterator[Site]:
    """Run `agents` with an edge in front; `row` changes the partner's row, `table` makes other settings for both issuers."""
    ca = ThrowawayCa("example.org")
    async with (
        LoopbackIssuer() as issuer,
        LoopbackIssuer() as partner,
        TestBus(*agents, engine=engine or ScriptedEngine()) as bus,
    ):
        identity = StaticIdentity(ca, EDGE, sealer=bus.edge.sealer, bundles=bus.edge.bundles())
        settings = table(issuer, partner) if table is not None else _table(issuer, partner, **row)
        async with _serving(bus, identity, settings) as edge:
            yield Site(
                bus=bus, ca=ca, identity=identity, edge=edge, issuer=issuer, partner=partner, edge_table=settings
            )


def _table(issuer: LoopbackIssuer, partner: LoopbackIssuer, **row: Any) -> EdgeTable:
    theirs = {
        "issuer": partner.issuer,
        "domain": PARTNER,
        "audiences": (AUDIENCE,),
        "assertion_audience": TOKEN_ENDPOINT,
        "algorithms": ("ES256",),
        **row,
    }
    table = edge_table(issuer, token_service="127.0.0.1:0")
    return table.model_copy(update={"issuers": (*table.issuers, IssuerTable.model_validate(theirs))})


@asynccontextmanager
async def _serving(bus: TestBus, identity: StaticIdentity, table: EdgeTable) -> AsyncIterator[RunningEdge]:
    async with (
        Node(
            deployment=bus.deployment, identity=identity, transport=bus.broker.connect(), engine=ScriptedEngine()
        ) as node,
        serve_edge(table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as edge,
    ):
        yield edge
