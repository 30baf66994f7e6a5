"""Which agents have streams of their own, as a registry says it."""

from __future__ import annotations

import pytest

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.policies.bundle.cells import AHEAD, MOST_CELLS, MOVING, bucket_and_cell, cells_of, check_moves
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


NOW = 1_764_748_800 * SECOND
DAY = 86_400 * SECOND
UNCHANGED = {"plans": Placement("east", "default", NOW - DAY)}


def moved(cell: str, before: str, since: int) -> Placement:
    return Placement(cell, before, NOW + since)


SOON = moved("east", "default", AHEAD)
BEGUN = moved("east", "default", AHEAD - 1)
LATE = moved("east", "default", 1 - MOVING)
OVER = moved("east", "default", -MOVING)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, SOON),
        (Placement("default"), SOON),
        (Placement("east"), moved("default", "east", AHEAD)),
        # One that has not worked, which nobody can see.
        (None, Placement("east")),
        (Placement("east"), None),
        # Taken back, and put off, as long as no message can be in the new cell.
        (SOON, None),
        (SOON, Placement("default")),
        (SOON, moved("east", "default", AHEAD + 1)),
        (moved("east", "default", DAY), SOON),
        (BEGUN, BEGUN),
        (LATE, LATE),
        # At its end.
        (OVER, Placement("east")),
        (OVER, moved("west", "east", AHEAD)),
        (OVER, moved("default", "east", AHEAD)),
    ],
)
def test_a_move_that_may_follow(old: Placement | None, new: Placement | None) -> None:
    present, pushed = ({"works": one} if one is not None else {} for one in (old, new))
    check_moves({**UNCHANGED, **present}, {**UNCHANGED, **pushed}, NOW)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (None, BEGUN, f"says `since` {NOW + AHEAD - 1}: it must be {NOW + AHEAD} or later, 60 s from now"),
        (None, LATE, "it must be"),
        (SOON, BEGUN, "it must be"),
        (OVER, moved("west", "east", AHEAD - 1), "it must be"),
        (None, moved("west", "east", AHEAD), "says `before` 'east', and the policy in force has it in 'default'"),
        (Placement("east"), moved("west", "default", AHEAD), "says `before` 'default', and .* has it in 'east'"),
        (OVER, moved("west", "default", AHEAD), "says `before` 'default', and .* has it in 'east'"),
        (SOON, Placement("east"), "is moved to 'east' soon: .* by a push of 'default'"),
        (SOON, moved("west", "default", AHEAD), "is moved to 'east' soon"),
        (SOON, moved("default", "east", AHEAD), "is moved to 'east' soon"),
        (BEGUN, None, "is being moved from 'default' to 'east': leave its entry as it is until 2026-01-05T08:01:00Z"),
        (BEGUN, Placement("default"), "nothing overrides this"),
        (BEGUN, SOON, "which is 33 days after"),
        (LATE, Placement("east"), "until 2025-12-03T08:00:01Z"),
        (LATE, moved("west", "east", AHEAD), "is being moved"),
        (LATE, moved("default", "east", AHEAD), "is being moved"),
    ],
)
def test_a_move_that_may_not_follow(old: Placement | None, new: Placement | None, problem: str) -> None:
    present, pushed = ({"works": one} if one is not None else {} for one in (old, new))
    with pytest.raises(ConfigurationError, match=rf"sealbus\.registry\.cells 'works' .*{problem}"):
        check_moves({**UNCHANGED, **present}, {**UNCHANGED, **pushed}, NOW)
