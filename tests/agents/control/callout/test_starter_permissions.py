"""What the starter lets a workload do with JetStream is what the development server does, whatever is declared.

What it may ask of others differs on purpose: the starter grants what its registry says, the development server everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from sealbus.agents.control.callout.permissions import grants_of, own_facts
from sealbus.agents.dev.nats.accounts import AGENTS as ACCOUNT_OF_AGENTS
from sealbus.agents.dev.nats.accounts import STREAMS
from sealbus.agents.dev.nats.config import BrokerRole, permissions_of
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.decision.connect import ConnectDecision, ConnectRequest, connect_document
from sealbus.policies.engines.embedded import EmbeddedEngine

EDGE = SpiffeId("spiffe://example.org/edge")
NAMES = Names(TrustDomain("example.org"), "/agent/{name}", {"edge": EDGE})
AGENTS = [NAMES.id_of(name) for name in ("shop-web", "planner", "inventory", "payments", "pricing", "cli")]
ROLES = {EDGE: BrokerRole.EDGE, NAMES.id_of("exit"): BrokerRole.EXIT}
TRIES = 20


def declared(chance: Random) -> list[OwnSubject]:
    """Return own subjects of any kind, some of them of nobody that is asked about."""
    owners = [*AGENTS, *ROLES, NAMES.id_of("somebody")]
    return [
        OwnSubject(
            subject=f"legacy.{number}.{chance.randrange(1_000)}",
            kind=chance.choice([Kind.TASK, Kind.CALL, Kind.EVENT]),
            owner=chance.choice(owners),
            action=f"a{number}.do",
        )
        for number in range(chance.randrange(6))
    ]


def of_streams(subjects: Iterable[str]) -> set[str]:
    """Return what is asked of JetStream, beside what may be published into it."""
    return {one for one in subjects if one.startswith("$JS.")}


@pytest.mark.parametrize("seed", range(TRIES))
async def test_the_starter_and_the_development_server_let_a_workload_read_the_same(seed: int) -> None:
    own = declared(Random(seed))  # noqa: S311  the same declarations each time
    async with EmbeddedEngine.of_folder() as engine:
        for spiffe_id in (*AGENTS, *ROLES):
            asked = ConnectRequest(
                subject=str(spiffe_id),
                trust_domain="example.org",
                token=NAMES.token(spiffe_id),
                server="N",
                server_name="n",
                time=1,
                not_after=2,
                own=own_facts(own),
            )
            decision = await engine.connect(connect_document(asked))
            assert isinstance(decision, ConnectDecision)
            assert decision.allow, (spiffe_id, decision.reasons)
            grants = grants_of(decision, own=spiffe_id, names=NAMES, accounts=["APP", "APP_AGENTS"])
            role = ROLES.get(spiffe_id, BrokerRole.AGENT)
            there = permissions_of(role, spiffe_id, NAMES, own)
            assert grants.account == (STREAMS if role.with_streams else ACCOUNT_OF_AGENTS), spiffe_id
            assert of_streams(grants.publish) == of_streams(there.publish), spiffe_id
