"""From a policy's answer to NATS' words: tokens by the settings' names, accounts from a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sealbus.agents.control.callout.permissions import Grants, grants_of, own_facts
from sealbus.bus.streams.declared import own_durable
from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.decision.connect import ConnectDecision, ConnectLimits, OwnSubjectFacts, SubjectRules
from sealbus.policies.decision.placement import Placement

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


CELLS = {
    "web": Placement("east"),
    "shop": Placement("east"),
    "ledger": Placement("west"),
    "plans": Placement("default"),
}
WEB = SpiffeId("spiffe://example.org/ns/shop/sa/web")
OWN_SUBJECTS = (
    OwnSubjectFacts(
        subject="orders.paid", kind="task", owner="spiffe://example.org/ns/shop/sa/ledger", action="ledger.pay"
    ),
    OwnSubjectFacts(
        subject="web.orders", kind="task", owner="spiffe://example.org/ns/shop/sa/shop", action="shop.order"
    ),
)


def granted(*allow: str, cells: Mapping[str, Placement] | None = CELLS, deny: tuple[str, ...] = ()) -> Grants:
    decision = replace(DECISION, publish=SubjectRules(allow=allow, deny=deny), cells=cells)
    return grants_of(decision, own=WEB, names=NAMES, accounts=["APP"], own_subjects=OWN_SUBJECTS)


@pytest.mark.parametrize(
    ("subject", "where"),
    [
        # In the cell of the workload that connects.
        ("task.shop.buy", "task.shop.buy"),
        ("task.shop.buy.*", "task.shop.buy.*"),
        ("control.shop.cancel", "control.shop.cancel"),
        ("status.{self}.*", "status.{self}.*"),
        ("_INBOX.{spiffe://example.org/ns/shop/sa/shop}.reply.*.*", "_INBOX.shop.reply.*.*"),
        ("web.orders", "web.orders"),
        # In another one.
        ("task.ledger.book.*", "cell.west.task.ledger.book.*"),
        ("call.ledger.book", "cell.west.call.ledger.book"),
        ("control.{spiffe://example.org/ns/shop/sa/ledger}.approve", "cell.west.control.ledger.approve"),
        ("status.{spiffe://example.org/ns/shop/sa/ledger}.*", "cell.west.status.ledger.*"),
        ("_INBOX.{spiffe://example.org/ns/shop/sa/ledger}.reply.*.*", "cell.west._INBOX.ledger.reply.*.*"),
        ("state.ledger.x", "cell.west.state.ledger.x"),
        ("orders.paid", "cell.west.orders.paid"),
        # Workloads that the registry puts in no cell, and in the default one.
        ("status.{spiffe://partner.org/buyer}.*", "cell.default.status.buyer.*"),
        ("task.plans.plan", "cell.default.task.plans.plan"),
    ],
)
def test_what_is_said_to_another_is_granted_in_its_cell_alone(subject: str, where: str) -> None:
    expected = (where.replace("{self}", "web"),)
    assert granted(subject, f"cell.*.{subject}").publish == expected
    assert granted(f"cell.*.{subject}", subject).publish == expected
    # What the policy grants at home alone, or away alone, is granted nowhere else.
    home = not where.startswith("cell.")
    assert granted(subject).publish == (expected if home else ())
    assert granted(f"cell.*.{subject}").publish == (() if home else expected)


def test_a_cell_that_the_policy_names_is_that_of_the_owner() -> None:
    right = ("cell.west.task.ledger.book", "cell.east.$JS.API.STREAM.LIST")
    assert granted(*right).publish == right
    for wrong in ("east", "north", "wes", "west-2", "WEST", "**", "*x"):
        assert granted(f"cell.{wrong}.task.ledger.book").publish == ()


def test_cells_with_nearly_the_same_name_are_others() -> None:
    for near in ("eas", "east-2", "EAST"):
        cells = {**CELLS, "ledger": Placement(near)}
        assert granted("task.ledger.book", "cell.*.task.ledger.book", cells=cells).publish == (
            f"cell.{near}.task.ledger.book",
        )


def test_workloads_with_nearly_the_same_token_are_others() -> None:
    cells = {token: Placement("west") for token in ("we", "web2", "WEB")}
    assert granted("task.web.x", "cell.*.task.web.x", cells=cells).publish == ("task.web.x",)


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.API.CONSUMER.CREATE.STATE.*.state.*.stop.*.*",
        "$JS.ACK.EVENTS.web.>",
        "audit.>",
        "task.*.buy",
        ">",
        "metrics.ledger",
        "more.agent",
        # Nearly an own subject, and nearly a first token of the scheme.
        "orders.paid.late",
        "orders.pai",
        "ORDERS.paid",
        "tas.ledger.x",
        "task2.ledger.x",
        "TASK.ledger.x",
    ],
)
def test_what_names_no_owner_or_any_is_granted_as_it_is(subject: str) -> None:
    assert granted(subject, f"cell.*.{subject}").publish == (subject, f"cell.*.{subject}")


def test_a_moved_agent_is_told_in_both_of_its_cells_and_has_its_own_there() -> None:
    cells = {**CELLS, "ledger": Placement("east", "west", 1), "web": Placement("east", "default", 1)}
    said = granted("task.ledger.book", "cell.*.task.ledger.book", cells=cells)
    assert said.publish == ("task.ledger.book", "cell.west.task.ledger.book")
    left = ("state.{self}.>", "cell.default.event.{self}.*", "cell.default.$JS.ACK.TASKS.{self}.>")
    expected = tuple(subject.replace("{self}", "web") for subject in left)
    assert granted(*left, "cell.west.event.{self}.*", cells=cells).publish == expected


def test_what_is_denied_is_denied_in_every_cell() -> None:
    grants = granted("task.ledger.*", "cell.*.task.ledger.*", deny=("task.ledger.void", "cell.west.task.ledger.x"))
    assert grants.publish == ("cell.west.task.ledger.*",)
    assert grants.publish_deny == ("task.ledger.void", "cell.west.task.ledger.x", "cell.*.task.ledger.void")


def test_without_cells_all_is_granted_as_it_is() -> None:
    nones: tuple[Mapping[str, Placement] | None, ...] = ({}, None)
    for cells in nones:
        grants = granted("task.ledger.book", "orders.paid", "status.web.*", cells=cells, deny=("task.ledger.x",))
        assert grants.publish == ("task.ledger.book", "orders.paid", "status.web.*")
        assert grants.publish_deny == ("task.ledger.x",)


def test_an_opa_grants_nothing_in_other_cells() -> None:
    for allow in (("task.ledger.book", "cell.*.task.ledger.book"), ("cell.*.task.ledger.book", "task.ledger.book")):
        with pytest.raises(PolicyFailed, match=r"policy\.engine embedded or native"):
            granted(*allow, cells=None)
