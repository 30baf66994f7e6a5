"""Which agents have streams of their own, as a registry says it."""

from __future__ import annotations

import pytest

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.cells import MOST_CELLS, bucket_and_cell, cells_of
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.decision.placement import Placement


def registry(cells: Json) -> DataDocument:
    names = [name for name in cells.values() if isinstance(name, str)] if isinstance(cells, dict) else []
    tenants: dict[str, Json] = {name: {"account": "A", "streams": "S"} for name in names}
    return {"sealbus": {"registry": {"cells": cells, "tenants": tenants}}}


@pytest.mark.parametrize("data", [{}, {"sealbus": {}}, {"sealbus": {"registry": {}}}, {"sealbus": 7}, registry({})])
def test_without_cells_nobody_is_in_one(data: DataDocument) -> None:
    assert cells_of(data) == {}


def test_each_token_has_its_cell() -> None:
    assert cells_of(registry({"works": "east", "plans": "default", "a-b_C": "x-1"})) == {
        "works": Placement("east"),
        "plans": Placement("default"),
        "a-b_C": Placement("x-1"),
    }


def test_a_token_that_was_moved_names_the_cell_before() -> None:
    data = registry({"works": {"cell": "default", "before": "east", "since": 7}, "plans": "east"})
    assert cells_of(data) == {"works": Placement("default", "east", 7), "plans": Placement("east")}
    with pytest.raises(ValueError, match="'west' is no tenant"):
        cells_of(registry({"works": {"cell": "default", "before": "west", "since": 7}}))


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": 7},
        {"cell": "East"},
        {"before": "east"},
        {"before": ""},
        {"before": None},
        {"since": 0},
        {"since": -1},
        {"since": 2**63},
        {"since": True},
        {"since": 1.0},
        {"since": "7"},
        {"until": 8},
    ],
)
def test_another_form_of_a_move_is_refused(changes: dict[str, Json]) -> None:
    placement: dict[str, Json] = {"cell": "east", "before": "default", "since": 7}
    with pytest.raises(ValueError, match=r"'works' names no cell$"):
        cells_of(registry({"works": {**placement, **changes}, "plans": "east"}))


@pytest.mark.parametrize("missing", ["cell", "before", "since"])
def test_a_move_says_everything(missing: str) -> None:
    placement: dict[str, Json] = {"cell": "east", "before": "default", "since": 7}
    del placement[missing]
    with pytest.raises(ValueError, match=r"'works' names no cell$"):
        cells_of(registry({"works": placement, "plans": "east"}))


@pytest.mark.parametrize(
    "cells",
    [
        [],
        None,
        "east",
        {"works": 7},
        {"works": None},
        {"works": ["east"]},
        {"works": ""},
        {"works": "East"},
        {"works": "1st"},
        {"works": "a.b"},
        {"works": "a*"},
        {"works": "e" * 33},
        {"a.b": "east"},
        {"*": "east"},
        {"": "east"},
    ],
)
def test_another_form_is_refused(cells: Json) -> None:
    with pytest.raises(ValueError, match=r"^sealbus\.registry\.cells .* names no cell$"):
        cells_of(registry(cells))


def test_the_number_of_cells_is_bounded() -> None:
    tokens: dict[str, Json] = {f"works-{number}": f"c{number}" for number in range(MOST_CELLS)}
    assert len(cells_of(registry({**tokens, "other": "c0", "more": "default"}))) == MOST_CELLS + 2
    with pytest.raises(ValueError, match="names over 16 cells"):
        cells_of(registry({**tokens, "other": "one-more"}))


@pytest.mark.parametrize(
    "tenants", [None, {}, {"west": {}}, {"east": 7}, {"east": {"account": "A"}}, {"east": {"streams": "S"}}]
)
def test_a_cell_without_accounts_is_refused(tenants: Json) -> None:
    with pytest.raises(ValueError, match="'east' is no tenant"):
        cells_of({"sealbus": {"registry": {"cells": {"works": "east"}, "tenants": tenants}}})


def test_the_default_cell_needs_no_tenant_of_its_own_there() -> None:
    assert cells_of({"sealbus": {"registry": {"cells": {"works": "default"}}}}) == {"works": Placement("default")}


OTHER = "spiffe://example.org/agent/other"


def placed(
    role: Json = "agent", tenant: Json = "acme", *, cells: Json = None, agents: Json = None, workloads: Json = None
) -> DataDocument:
    tenants: dict[str, Json] = {name: {"account": "A", "streams": "S"} for name in ("default", "acme", "east")}
    workload: Json = {OTHER: {"role": role, "tenant": tenant}}
    return {
        "sealbus": {
            "registry": {
                "cells": {"works": "east"} if cells is None else cells,
                "tenants": tenants,
                "workloads": workload if workloads is None else workloads,
                "agents": {} if agents is None else agents,
            }
        }
    }


@pytest.mark.parametrize("role", ["agent", "edge", "console", "operators", None])
@pytest.mark.parametrize("tenant", ["acme", "", None, ["east"]])
def test_beside_cells_nobody_is_in_a_tenant_that_is_none(role: Json, tenant: Json) -> None:
    with pytest.raises(
        ValueError, match=r"workloads 'spiffe://example\.org/agent/other' is in a tenant that is no cell"
    ):
        cells_of(placed(role=role, tenant=tenant))
    # Without another cell a tenant is a tenant.
    nones: tuple[dict[str, Json], ...] = ({}, {"works": "default"})
    for none in nones:
        assert set(cells_of(placed(role=role, tenant=tenant, cells=none))) == set(none)


def test_beside_cells_a_workload_is_in_one_of_them() -> None:
    for tenant in ("east", "default"):
        assert cells_of(placed(role="agent", tenant=tenant)) == {"works": Placement("east")}
    others: tuple[Json, ...] = ([], {OTHER: "acme"}, {})
    for workloads in others:
        assert cells_of(placed(workloads=workloads)) == {"works": Placement("east")}


def test_an_operator_may_prepare_a_cell() -> None:
    assert cells_of(placed(role="operator", tenant="acme")) == {"works": Placement("east")}
    assert cells_of(placed(role="operator", tenant="acme", agents=[OTHER])) == {"works": Placement("east")}
    with pytest.raises(ValueError, match="no cell"):
        cells_of(placed(role="operator", tenant="acme", agents={OTHER: {"actions": {}}}))


def test_a_bucket_is_named_alone_or_with_its_cell() -> None:
    assert bucket_and_cell("policies") == ("policies", "")
    assert bucket_and_cell("policies@east-1") == ("policies", "east-1")
    for wrong in ("", "a.b", "@east", "a b@east"):
        with pytest.raises(ConfigurationError, match="name of a bucket"):
            bucket_and_cell(wrong)
    for wrong in ("a@", "a@East", "a@*", "a@b.c", "a@b@c", "a@" + "e" * 33):
        with pytest.raises(ConfigurationError, match="name of a cell"):
            bucket_and_cell(wrong)
