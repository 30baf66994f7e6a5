"""Whether a bundle may be put in force."""

from __future__ import annotations

import pytest
from support.policies import SCRIPTED, bundle

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.lint.module import PolicyRefused


def made(data: dict[str, Json], *roots: str, more: str = "") -> Bundle:
    modules = {"authz.rego": SCRIPTED.encode()} | ({"more.rego": more.encode()} if more else {})
    return read_bundle(pack_bundle(modules, data, Manifest(roots=roots or ("",))))


def refused(found: Bundle) -> list[tuple[str, str]]:
    with pytest.raises(PolicyRefused) as caught:
        check_bundle(found)
    return [(problem.file, problem.form) for problem in caught.value.problems]


def test_a_good_bundle() -> None:
    check_bundle(bundle())
    check_bundle(made({"answers": {"a": {}}}, "sealbus/authz", "answers"))
    check_bundle(made({}, "sealbus"))


def test_forms_entry_points_and_lookups_are_all_reported() -> None:
    more = "package lib\n\nx(r) if not r[r.y]\n\ny := input.z\n\nz(r) := data.list[r]\n"
    found = refused(made({"list": [1]}, more=more))
    assert sorted(form for _, form in found) == ["entrypoint", "lookup", "negation"]


def test_what_does_not_parse_is_reported_alone() -> None:
    assert refused(made({}, more="package lib\n\nx {")) == [("more.rego", "compile")]


def test_what_regorus_does_not_compile() -> None:
    more = "package lib\n\nx(r) if { is_array(r); some k in r; y := k; data.l[y] }\n"
    assert refused(made({}, more=more)) == [("more.rego", "compile")]


def test_roots() -> None:
    assert refused(made({"answers": {"a": 1}, "other": {}}, "sealbus", "answers")) == [("data.json", "roots")]
    assert refused(made({}, "answers")) == [("authz.rego", "roots")]


@pytest.mark.parametrize(
    "data",
    [
        {"sealbus": 1},
        {"sealbus": {"authz": [1]}},
        {"sealbus": {"authz": {"decision": {}}}},
        {"sealbus": {"authz": {"batch": 1}}},
    ],
)
def test_data_in_the_place_of_a_rule(data: dict[str, Json]) -> None:
    assert ("authz.rego", "conflict") in refused(made(data))


def test_data_beside_rules() -> None:
    check_bundle(made({"sealbus": {"authz": {"limits": {"a": 1}}, "agents": {}}}))
