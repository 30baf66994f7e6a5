"""From a policy's answer to NATS' words: tokens by the settings' names, accounts from a list."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealbus.agents.control.callout.permissions import grants_of, own_facts
from sealbus.bus.streams.declared import own_durable
from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.decision.connect import ConnectDecision, ConnectLimits, OwnSubjectFacts, SubjectRules

PARTNER = SpiffeId("spiffe://partner.org/buyer")
NAMES = Names(TrustDomain("example.org"), "/ns/shop/sa/{name}", {"buyer": PARTNER})
DECISION = ConnectDecision(
    allow=True,
    policy="p",
    account="APP",
    publish=SubjectRules(
        allow=(
            "status.{spiffe://example.org/ns/shop/sa/web}.*",
            "x.{spiffe://partner.org/buyer}.y",
            "plain.>",
            "audit.{self}",
        ),
        deny=("x.{spiffe://example.org/other}",),
    ),
    subscribe=SubjectRules(allow=("call.{spiffe://example.org/ns/shop/sa/web}.* q", "call.{self}.* {self}"), deny=()),
    limits=ConnectLimits(subscriptions=1, payload=2, data=3),
    revision="r",
    engine="e",
)


def test_workloads_in_braces_become_tokens() -> None:
    grants = grants_of(DECISION, own=PARTNER, names=NAMES, accounts=["APP"])
    other = NAMES.token(SpiffeId("spiffe://example.org/other"))
    assert other.startswith("id-")
    assert grants.publish == ("status.web.*", "x.buyer.y", "plain.>", "audit.buyer")
    assert grants.publish_deny == (f"x.{other}",)
    assert grants.subscribe == ("call.web.* q", "call.buyer.* buyer")
    assert (grants.account, grants.limits) == ("APP", DECISION.limits)


@pytest.mark.parametrize("account", ["SYS", "AUTH", "app", "ACME", "AP", "APPS"])
def test_an_account_that_may_not_be_given(account: str) -> None:
    with pytest.raises(PolicyFailed, match=account):
        grants_of(replace(DECISION, account=account), own=PARTNER, names=NAMES, accounts=["APP"])


@pytest.mark.parametrize("inside", ["spiffe://Example.org/x", "spiffe://example.org/*", "spiffe://example.org/a/>", ""])
def test_what_is_no_workload_ends_the_answer(inside: str) -> None:
    rules = SubjectRules(allow=(f"status.{{{inside}}}.*",), deny=())
    with pytest.raises(PolicyFailed, match="not a SPIFFE ID"):
        grants_of(replace(DECISION, publish=rules), own=PARTNER, names=NAMES, accounts=["APP"])


def test_own_subjects_are_told_with_their_consumers() -> None:
    owner = SpiffeId("spiffe://example.org/ns/shop/sa/web")
    own = (
        OwnSubject(subject="orders.made", kind=Kind.TASK, owner=owner, action="web.make"),
        OwnSubject(subject="orders.sold", kind=Kind.EVENT, owner=owner, action="web.sold"),
    )
    assert own_facts(own) == (
        OwnSubjectFacts(
            subject="orders.made",
            kind="task",
            owner=str(owner),
            action="web.make",
            durable=own_durable("orders.made"),
        ),
        OwnSubjectFacts(subject="orders.sold", kind="event", owner=str(owner), action="web.sold"),
    )
