"""Which agents have streams of their own, as a registry says it."""

from __future__ import annotations

import pytest

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.cells import MOST_CELLS, cells_of
from sealbus.policies.decision.documents import DataDocument


def registry(cells: Json) -> DataDocument:
    names = [name for name in cells.values() if isinstance(name, str)] if isinstance(cells, dict) else []
    tenants: dict[str, Json] = {name: {"account": "A", "streams": "S"} for name in names}
    return {"sealbus": {"registry": {"cells": cells, "tenants": tenants}}}


@pytest.mark.parametrize("data", [{}, {"sealbus": {}}, {"sealbus": {"registry": {}}}, {"sealbus": 7}, registry({})])
def test_without_cells_nobody_is_in_one(data: DataDocument) -> None:
    assert cells_of(data) == {}


def test_each_token_has_its_cell() -> None:
    assert cells_of(registry({"works": "east", "plans": "default", "a-b_C": "x-1"})) == {
        "works": "east",
        "plans": "default",
        "a-b_C": "x-1",
    }


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
    assert cells_of({"sealbus": {"registry": {"cells": {"works": "default"}}}}) == {"works": "default"}
