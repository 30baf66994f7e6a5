"""Names and SPIFFE IDs, one to one (SPEC.md section 1, "Names")."""

from __future__ import annotations

import pytest

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.names import Names, is_token
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

DOMAIN = TrustDomain("example.org")
PRICING = SpiffeId("spiffe://example.org/ns/shop/sa/pricing")
PARTNER = SpiffeId("spiffe://partner.example/quote-service")


def test_the_template_maps_both_ways() -> None:
    names = Names(DOMAIN)
    planner = SpiffeId("spiffe://example.org/agent/planner")
    assert names.id_of("planner") == planner
    assert names.name_of(planner) == "planner"
    assert names.token(planner) == "planner"
    assert names.inbox_prefix(planner) == "_INBOX.planner."
    assert names.trust_domain == DOMAIN


@pytest.mark.parametrize("template", ["/{name}", "/ns/{name}/sa/agent", "/agent-{name}", "/a{name}a", "/.{name}"])
def test_any_template_with_one_place(template: str) -> None:
    names = Names(DOMAIN, template)
    spiffe_id = names.id_of("x-1")
    assert spiffe_id.value == "spiffe://example.org" + template.replace("{name}", "x-1")
    assert names.name_of(spiffe_id) == "x-1"


@pytest.mark.parametrize(
    "template",
    ["", "/agent", "/{name}/{name}", "agent/{name}", "/{name}/", "//{name}", "/../{name}", "/a b/{name}", "/{Name}"],
)
def test_other_templates_are_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="template"):
        Names(DOMAIN, template)


def test_ids_that_no_name_gives_have_a_token_of_their_hash() -> None:
    names = Names(DOMAIN)
    for value in (
        "spiffe://example.org/agent/a.b",
        "spiffe://example.org/agent/a/b",
        "spiffe://example.org/agent",
        "spiffe://example.org/edge",
        "spiffe://other.example/agent/planner",
        "spiffe://example.com/agent/planner",
        "spiffe://example.org/other/planner",
        "spiffe://example.org/agent/id-planner",
    ):
        spiffe_id = SpiffeId(value)
        assert names.name_of(spiffe_id) is None
        token = names.token(spiffe_id)
        assert token.startswith("id-")
        assert len(token) == 35
        assert is_token(token)
        assert names.inbox_prefix(spiffe_id) == f"_INBOX.{token}."


def test_the_token_of_a_nameless_id_is_a_known_answer() -> None:
    assert Names(DOMAIN).token(SpiffeId("spiffe://example.org/edge")) == "id-ee9ae7d4a543a0ca7920b3136a4a75c3"


def test_both_ends_of_the_template_count() -> None:
    names = Names(DOMAIN, "/ns/{name}/sa/agent")
    assert names.name_of(SpiffeId("spiffe://example.org/ns/shop/sa/agent")) == "shop"
    assert names.name_of(SpiffeId("spiffe://example.org/ns/shop/sa/other")) is None
    assert names.name_of(SpiffeId("spiffe://example.org/sn/shop/sa/agent")) is None


def test_a_template_whose_ends_overlap_in_the_id_gives_no_name() -> None:
    assert Names(DOMAIN, "/aa{name}aa").name_of(SpiffeId("spiffe://example.org/aaa")) is None
    assert Names(DOMAIN, "/aa{name}aa").name_of(SpiffeId("spiffe://example.org/aaaa")) is None


def test_the_table_is_above_the_template() -> None:
    names = Names(DOMAIN, table={"pricing": PRICING, "partner": PARTNER})
    assert names.id_of("pricing") == PRICING
    assert names.name_of(PRICING) == "pricing"
    assert names.token(PARTNER) == "partner"
    # What the template would call "pricing" is another workload, and must not share its subjects.
    shadowed = SpiffeId("spiffe://example.org/agent/pricing")
    assert names.name_of(shadowed) is None
    assert names.token(shadowed).startswith("id-")
    assert names.id_of("planner") == SpiffeId("spiffe://example.org/agent/planner")


def test_an_id_with_a_name_in_the_table_has_no_other() -> None:
    planner = SpiffeId("spiffe://example.org/agent/planner")
    names = Names(DOMAIN, table={"chief": planner})
    assert names.name_of(planner) == "chief"
    with pytest.raises(ConfigurationError, match="is named 'chief'"):
        names.id_of("planner")


def test_two_names_may_be_swapped() -> None:
    table = {"a": SpiffeId("spiffe://example.org/agent/b"), "b": SpiffeId("spiffe://example.org/agent/a")}
    names = Names(DOMAIN, table=table)
    for name, spiffe_id in table.items():
        assert names.id_of(name) == spiffe_id
        assert names.name_of(spiffe_id) == name


def test_a_table_is_one_to_one() -> None:
    with pytest.raises(ConfigurationError, match="two names"):
        Names(DOMAIN, table={"a": PRICING, "b": PRICING})


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", ">", "ä", "id-", "id-x", "a\n", "$a", "a" * 2048])
def test_names_are_tokens_that_do_not_start_like_a_hash(name: str) -> None:
    with pytest.raises(ConfigurationError, match="agent name"):
        Names(DOMAIN).id_of(name)
    if len(name) < 2048:
        with pytest.raises(ConfigurationError, match="agent name"):
            Names(DOMAIN, table={name: PRICING})


@pytest.mark.parametrize("place", range(3))
def test_every_name_of_a_table_is_one(place: int) -> None:
    table = {name: SpiffeId(f"spiffe://example.org/x/{name}") for name in ("a", "b", "c")}
    assert Names(DOMAIN, table=table).table == table
    names = [*table]
    names[place] = "a.b"
    with pytest.raises(ConfigurationError, match="agent name"):
        Names(DOMAIN, table=dict(zip(names, table.values(), strict=True)))


def test_a_table_is_copied() -> None:
    table = {"pricing": PRICING}
    names = Names(DOMAIN, table=table)
    table["pricing"] = PARTNER
    assert names.id_of("pricing") == PRICING


def test_tokens_are_remembered_within_a_bound() -> None:
    names = Names(DOMAIN)
    tokens = {names.token(SpiffeId(f"spiffe://example.org/x/{number}")) for number in range(5000)}
    assert len(tokens) == 5000
    assert names.remembered == 4096


@pytest.mark.parametrize(("text", "expected"), [("aZ09_-", True), ("", False), ("a.b", False), ("a\n", False)])
def test_tokens(text: str, expected: bool) -> None:
    assert is_token(text) is expected


def test_it_says_what_it_was_made_of() -> None:
    table = {"edge": SpiffeId("spiffe://example.org/edge")}
    names = Names(TrustDomain("example.org"), "/ns/{name}", table)
    assert (names.template, dict(names.table)) == ("/ns/{name}", table)
