"""The library in bundles: laid into each, called by policies and by parts of teams, and nobody else's to write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.opa import require_opa
from support.policies import SCRIPTED, folder, signing_key
from support.teams import owner, platform, signed_platform, signed_team, team, team_policy

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.check import check_bundle, check_part
from sealbus.policies.bundle.composition import PartSet, check_team, compose
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Manifest, pack_bundle, read_bundle
from sealbus.policies.bundle.library import (
    LIBRARY_FOLDER,
    LIBRARY_ROOT,
    carries_library,
    in_library,
    library_files,
    library_modules,
    of_library,
    refuse_own_library,
    with_library_root,
)
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.decision.documents import canonical
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.opa.compiler import opa_check

SHOP = """package sealbus.authz

import data.sealbus.lib.rules

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := rules.allowed("shop") if {
	rules.in_order(request) == true
	small_enough(request) == true
} else := rules.denied("shop", request, {"too_much_at_once": small_enough(request)})

small_enough(request) if {
	request.action.properties.quantity <= data.shop.limits.quantity
} else := false
"""
STOCK = """package sealbus.teams.stock

import data.sealbus.lib.rules

decide(request) := rules.allowed("stock") if {
	rules.in_order(request) == true
} else := rules.denied("stock", request, {})
"""
KEY = signing_key()
OWNERS = {"stock": owner(KEY, ["inventory"])}
REGISTRY = json.loads(canonical(build_bundle(STARTER).data))["sealbus"]["registry"]


def shop(path: Path, **files: str | dict[str, Json]) -> Path:
    shutil.copytree(STARTER / "sealbus" / "registry", path / "sealbus" / "registry")
    return folder(path, {"authz.rego": SHOP, "shop/limits/data.json": {"quantity": 3}, **files})


def test_the_files_of_the_library_are_rego_and_data() -> None:
    files = library_files()
    assert {path for path in files if path.endswith(".rego")} == {module.path for module in library_modules()}
    assert all(in_library(path) and (LIBRARY_FOLDER / path).is_file() for path in files)
    assert "sealbus/lib/rules.rego" in files


@pytest.mark.parametrize(
    ("roots", "with_it"),
    [
        ([""], [""]),
        (["sealbus"], ["sealbus"]),
        (["/sealbus/"], ["/sealbus/"]),
        (["sealbus/lib"], ["sealbus/lib"]),
        (["sealbus/authz", "shop"], ["sealbus/authz", "shop", "sealbus/lib"]),
        (["sealbus/library"], ["sealbus/library", "sealbus/lib"]),
        (["shop", "sealbus/lib/mine"], ["shop", "sealbus/lib"]),
    ],
)
def test_its_root_is_added_where_no_other_is_above_it(roots: list[str], with_it: list[str]) -> None:
    assert with_library_root(roots) == tuple(with_it)


@pytest.mark.parametrize(
    ("roots", "carries"),
    [
        (["sealbus/teams/stock"], False),
        (["sealbus/revocations"], False),
        (["sealbus/teams/stock", "sealbus/registry"], True),
        (["sealbus/teamsters"], True),
        ([""], True),
    ],
)
def test_all_but_the_parts_of_teams_and_revocations_carry_it(roots: list[str], carries: bool) -> None:
    assert carries_library(roots) is carries


def test_a_policy_that_calls_it_is_a_bundle_and_decides(tmp_path: Path) -> None:
    manifest: dict[str, Json] = {"roots": ["sealbus/authz", "sealbus/registry", "shop"]}
    bundle = build_bundle(shop(tmp_path, **{".manifest": manifest}))
    assert bundle.roots == ("sealbus/authz", "sealbus/registry", "shop", LIBRARY_ROOT)
    assert of_library(bundle.modules) == library_modules()
    interpreter = Interpreter(bundle.modules, canonical(bundle.data))
    assert interpreter.evaluate("data.sealbus.authz.decision", b'{"action": {"properties": {"quantity": 4}}}') == {
        "allow": False, "reasons": ["incomplete"], "obligations": [], "policy": "shop",
    }  # fmt: skip


@pytest.mark.opa
def test_a_real_opa_accepts_what_calls_it(tmp_path: Path) -> None:
    opa_check(build_bundle(shop(tmp_path)), require_opa())


def test_the_revision_is_of_the_library_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, {"authz.rego": SCRIPTED})
    before = build_bundle(tmp_path)
    assert build_bundle(tmp_path).raw == before.raw
    files: Mapping[str, bytes] = {**library_files(), "sealbus/lib/more.rego": b"package sealbus.lib.more\n\nx := 1\n"}
    monkeypatch.setattr("sealbus.policies.bundle.files.library_files", lambda: files)
    assert build_bundle(tmp_path).revision != before.revision


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sealbus/lib/rules.rego", "package sealbus.lib.rules\n"),
        ("sealbus/lib/mine/x.rego", "package shop\n"),
        ("sealbus/lib/reasons/data.json", {}),
        ("sealbus/data.json", {"lib": {"x": 1}}),
        ("data.json", {"sealbus": {"lib": 1}}),
        ("mine.rego", "package sealbus.lib.mine\n\nx := 1\n"),
        ("mine.rego", "package sealbus.lib\n\nx := 1\n"),
    ],
)
def test_a_projects_own_files_are_refused_there(tmp_path: Path, name: str, content: str | dict[str, Json]) -> None:
    with pytest.raises(PolicyRefused, match="sealbus/lib is the library's") as caught:
        build_bundle(shop(tmp_path, **{name: content}))
    assert {(one.file, one.form) for one in caught.value.problems} == {(name, "library")}


def test_what_is_not_below_its_root_is_nobodys() -> None:
    refuse_own_library("sealbus/library/x.rego", {"sealbus": {"registry": {}}})
    refuse_own_library("x.rego", {"sealbus": 1})


def test_a_file_of_another_package_is_not_the_librarys(tmp_path: Path) -> None:
    modules = {"authz.rego": SCRIPTED.encode(), "sealbus/lib/x.rego": b"package shop\n\nx := 1\n"}
    with pytest.raises(PolicyRefused, match=r"sealbus/lib/x\.rego:1:1: .*\[library\]"):
        check_bundle(read_bundle(pack_bundle(modules, {}, Manifest())))


def test_a_mistake_in_the_registry_is_reported_where_the_library_reads_it(tmp_path: Path) -> None:
    wrong: dict[str, Json] = {"always": {**REGISTRY["regions"]["always"], "utc_offset_minutes": "60"}}
    with pytest.raises(PolicyRefused, match=r"sealbus/lib/rules\.rego:[0-9]+:[0-9]+: this operator takes a number"):
        build_bundle(shop(tmp_path, **{"sealbus/registry/regions/data.json": wrong}))


def test_no_such_function_of_the_library(tmp_path: Path) -> None:
    text = SHOP.replace("rules.in_order(request)", "rules.in_oder(request)")
    with pytest.raises(
        PolicyRefused, match=r"authz\.rego:10:2: rules\.in_oder: there is no such function \[function\]"
    ):
        build_bundle(shop(tmp_path, **{"authz.rego": text}))


# Teams


def with_library(owners: Mapping[str, Json] = OWNERS, **registry: Json) -> bytes:
    """Return a platform's bundle with the whole registry of the starter policy, in which some documents are others."""
    built = platform(owners)
    sealbus = built.data["sealbus"]
    assert isinstance(sealbus, dict)
    data: dict[str, Json] = {"sealbus": {**sealbus, "registry": {**REGISTRY, **registry}}}
    modules = {module.path: module.text.encode() for module in built.modules}
    return pack_bundle(modules, data, Manifest(roots=built.roots, serial=1))


def test_the_part_of_a_team_calls_the_library_and_does_not_carry_it(tmp_path: Path) -> None:
    manifest: dict[str, Json] = {"roots": ["sealbus/teams/stock"]}
    part = build_bundle(folder(tmp_path, {".manifest": manifest, "stock.rego": STOCK}), part=True)
    assert part.roots == ("sealbus/teams/stock",)
    assert [module.path for module in part.modules] == ["stock.rego"]
    check_team(part, "stock", library_modules())
    with pytest.raises(PolicyRefused, match=r"rules\.allowed: there is no such function"):
        check_team(part, "stock")


def test_a_composition_has_the_library_once_from_the_platform() -> None:
    above = read_bundle(with_library())
    composed = compose(above, {"stock": team("stock", STOCK)})
    assert of_library(composed.modules) == library_modules()
    assert sorted(module.path for module in composed.modules if not in_library(module.path)) == [
        "platform/sealbus/platform/denials.rego",
        "sealbus/authz/dispatch.rego",
        "stock/policy.rego",
    ]
    interpreter = Interpreter(composed.modules, canonical(composed.data))
    asked = b'{"action": {"name": "inventory.read"}, "context": {"user": {}, "chain": []}}'
    answer = interpreter.evaluate("data.sealbus.authz.decision", asked)
    assert isinstance(answer, dict)
    assert (answer["allow"], answer["policy"]) == (False, "platform")


def test_many_teams_call_it_with_conditions_of_their_own() -> None:
    names = [f"team{number}" for number in range(40)]
    text = STOCK.replace("{})", '{"own_WORD": 1 == 1})')
    parts = {name: team(name, text.replace("stock", name).replace("WORD", name)) for name in names}
    owners = {name: owner(KEY, [f"agent-{name}"]) for name in names}
    above = read_bundle(with_library(owners=owners))
    assert len(compose(above, parts).modules) == 40 + 2 + len(library_modules())


@pytest.mark.opa
def test_a_real_opa_accepts_the_composition() -> None:
    opa_check(compose(read_bundle(with_library()), {"stock": team("stock", STOCK)}), require_opa())


def test_what_the_library_cannot_do_with_the_platforms_data_is_found_in_the_composition() -> None:
    wrong: Json = {"always": {**REGISTRY["regions"]["always"], "utc_offset_minutes": "60"}}
    stock = team("stock", STOCK)
    check_team(stock, "stock", library_modules())
    with pytest.raises(PolicyRefused, match=r"sealbus/lib/rules\.rego:.*this operator takes a number"):
        compose(read_bundle(with_library(regions=wrong)), {"stock": stock})


def test_a_team_is_refused_where_the_platform_carries_no_library() -> None:
    found = PartSet({key_id(KEY.public): KEY.public})
    found.offer(PLATFORM, signed_platform(KEY, {"stock": KEY}))
    found.offer("stock", signed_team("stock", KEY, STOCK))
    bare = platform(OWNERS, serial=2)
    modules = {one.path: one.text.encode() for one in bare.modules if not in_library(one.path)}
    without = read_bundle(pack_bundle(modules, bare.data, Manifest(roots=bare.roots, serial=2)))
    found.offer(PLATFORM, sign_bundle(without, KEY, scope=PLATFORM).raw)
    assert "there is no such function" in found.problems["stock"]
    with pytest.raises(PolicyRefused, match=r"policy\.rego:5:20: rules\.allowed: there is no such function"):
        found.offer("stock", signed_team("stock", KEY, STOCK, serial=2))


@pytest.mark.parametrize(
    "text",
    [
        "package sealbus.platform\n\ndenials(request) := [] if request.v\n",
        "package sealbus.authz\n\nx := input\n",
        "package sealbus.lib.rules\n\nin_order(request) if request.v\n",
    ],
)
@pytest.mark.parametrize("path", ["sealbus/lib/rules.rego", "sealbus/lib/mine.rego"])
def test_a_team_cannot_write_the_library_nor_hide_in_it(path: str, text: str) -> None:
    modules = {"policy.rego": team_policy("stock").encode(), path: text.encode()}
    part = read_bundle(pack_bundle(modules, {}, Manifest(roots=("sealbus/teams/stock",))))
    with pytest.raises(PolicyRefused, match=r"the package is outside the bundle's roots"):
        check_team(part, "stock", library_modules())


def test_a_library_that_does_not_parse_is_reported() -> None:
    with pytest.raises(PolicyRefused, match=r"sealbus/lib/x\.rego:1:"):
        check_part(team("stock"), [Module(path="sealbus/lib/x.rego", text="package sealbus.lib.x {")])
