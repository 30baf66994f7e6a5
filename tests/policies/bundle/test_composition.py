"""Composition: the same of the same, and no part outside of its roots."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.policies import bundle, signing_key
from support.teams import owner, platform, team, team_policy

from sealbus.policies.bundle.composition import check_platform, check_team, compose
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.lint.module import Module, PolicyRefused

KEY = signing_key()
OWNERS = {"stock": owner(KEY, ["inventory"]), "money": owner(KEY, ["pricing"])}


def test_a_whole_policy_composes_to_itself() -> None:
    starter = build_bundle(STARTER, serial=4)
    check_platform(starter)
    composed = compose(starter, {"stock": team("stock")})
    assert composed.revision.endswith(".platform-4")
    assert composed.data == starter.data
    assert composed.roots == starter.roots
    assert [module.text for module in composed.modules] == [module.text for module in starter.modules]


def test_the_same_parts_give_the_same_bytes_whoever_signed_them_and_in_whatever_order() -> None:
    above = platform(OWNERS, serial=3)
    first = compose(above, {"stock": team("stock", serial=2), "money": team("money", serial=5)})
    again = compose(
        sign_bundle(above, KEY, scope=PLATFORM),
        {"money": team("money", serial=5), "stock": sign_bundle(team("stock", serial=2), KEY, scope="stock")},
    )
    assert first.raw == again.raw
    assert first.revision.endswith(".platform-3.money-5.stock-2")
    assert first.roots == (
        "sealbus/platform", "sealbus/registry", "sealbus/lib", "sealbus/authz", "sealbus/teams/money", "sealbus/teams/stock",
    )  # fmt: skip
    other = compose(above, {"stock": team("stock", team_policy("stock", allow="1 == 1"), serial=2)})
    assert other.revision != first.revision


def test_a_team_that_is_not_named_is_left_out() -> None:
    composed = compose(platform(OWNERS), {"other": team("other")})
    assert composed.revision.endswith(".platform-1")


def test_a_revision_stays_within_its_bound() -> None:
    names = [f"team_{number:027d}" for number in range(12)]
    composed = compose(platform({name: owner(KEY, []) for name in names}), {name: team(name) for name in names})
    assert len(composed.revision) <= 256
    assert composed.revision.endswith("...")


def test_parts_that_fit_alone_and_not_together_are_refused() -> None:
    """Each archive is within the bounds, and nobody could read that of the composition."""
    above = platform(OWNERS)
    teams = {name: team(name) for name in OWNERS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sealbus.policies.bundle.archive.BUNDLE_FILES", len(above.modules) + 4)
        compose(above, {"stock": teams["stock"]})
        with pytest.raises(PolicyRefused, match=r"over [0-9]+ files"):
            compose(above, teams)


def test_a_file_whose_name_is_too_long_for_an_archive_is_refused() -> None:
    """An archive with extensions may have it, and the composition is packed without these."""
    part = team("stock")
    long = Module(path="x" * 150 + ".rego", text="package sealbus.teams.stock\n")
    with pytest.raises(PolicyRefused, match="a file cannot be packed: name is too long"):
        compose(platform(OWNERS), {"stock": replace(part, modules=(*part.modules, long))})


def test_a_composition_is_what_its_file_says() -> None:
    composed = compose(platform(OWNERS), {name: team(name) for name in OWNERS})
    read = read_bundle(composed.raw)
    assert (read.revision, read.roots, read.modules) == (composed.revision, composed.roots, composed.modules)
    assert read.data == composed.data


@pytest.mark.parametrize("roots", [("",), ("sealbus",), ("sealbus/platform", "sealbus/teams/x"), ("sealbus/authz",)])
def test_a_platform_with_teams_leaves_their_roots_alone(roots: tuple[str, ...]) -> None:
    part = platform(OWNERS)
    modules = {module.path: module.text.encode() for module in part.modules}
    with pytest.raises(PolicyRefused, match=r"\.manifest: with teams no root of the platform may overlap"):
        check_platform(read_bundle(pack_bundle(modules, part.data, Manifest(roots=roots))))


def test_a_platform_without_denials() -> None:
    part = platform(OWNERS)
    empty = read_bundle(pack_bundle({}, part.data, Manifest(roots=part.roots)))
    with pytest.raises(PolicyRefused, match=r"no function denials\(request\)"):
        check_platform(empty)
    with pytest.raises(PolicyRefused, match="needs `decision"):
        check_platform(platform(None))
    check_platform(platform(OWNERS))
    check_platform(bundle())


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (team("stock", roots=["sealbus/teams/stock", "sealbus/teams/money"]), r"\.manifest: the only root of stock"),
        (team("stock", roots=[""]), r"\.manifest: the only root of stock"),
        (team("stock", team_policy("money")), r"policy\.rego:1:1: the package is outside"),
        (team("stock", "package sealbus.authz\n\ndecide(request) := 1\n"), r"policy\.rego:1:1: the package is outside"),
        (team("stock", data={"sealbus": {"teams": {"money": {"x": 1}}}}), r"data\.json: sealbus.teams.money.x is out"),
        (team("stock", data={"sealbus": {"registry": {"users": {}}}}), r"data\.json: sealbus.registry.users is outside"),
        (team("stock", team_policy("stock", extra="a := input\n")), r"policy\.rego:8:6: only decision and batch"),
        (team("stock", team_policy("stock", extra="a := data.sealbus.teams.money\n")), r"policy\.rego:8:6: .*\[team\]"),
        (team("stock", "package sealbus.teams.stock\n\ndecide := 1\n"), r"no function decide\(request\)"),
        (team("stock", "package sealbus.teams.stock\n\ndecide(a, b) := 1\n"), r"no function decide\(request\)"),
        (team("stock", "package sealbus.teams.stock {"), r"policy\.rego:1:29: .*\[compile\]"),
    ],
)  # fmt: skip
def test_a_team_outside_of_its_root(part: Bundle, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        check_team(part, "stock")


def test_parts_that_do_not_go_together_are_refused_with_the_part_before_the_file() -> None:
    looking = team("stock", team_policy("stock", allow="data.sealbus.registry.revoked.more[request.action.name]"))
    check_team(looking, "stock")
    with pytest.raises(PolicyRefused, match=r"stock/policy\.rego:4:"):
        compose(platform(OWNERS, revoked={"more": ["a"]}), {"stock": looking})


def test_a_part_calls_its_own_functions_only() -> None:
    calling = team("stock", team_policy("stock", allow="data.sealbus.platform.denials(request) == []"))
    with pytest.raises(PolicyRefused, match=r"policy\.rego:4:"):
        check_team(calling, "stock")
