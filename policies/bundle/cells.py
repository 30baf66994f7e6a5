"""The cells of a registry: which agents have streams apart from the others' (docs/cells.md).

`data.sealbus.registry.cells` has the name of a cell by subject token; a token that is not there is in the default cell::

    {"billing": "east", "ledger": "east"}

The callout places a workload by it, and every process finds by it the streams of those whom it tells something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.names import is_token
from sealbus.policies.decision.documents import DataDocument

CELLS: Final = ("sealbus", "registry", "cells")
TENANTS: Final = ("sealbus", "registry", "tenants")
MOST_CELLS: Final = 16
"""Cells beside the default one: each costs every process a reader of its own."""
DEFAULT: Final = "default"
"""The cell, and the tenant, of those who are named in no other."""

_CELL: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


def cells_of(data: DataDocument) -> Mapping[str, str]:
    """Return the cell of each subject token that the registry names.

    Raises `ValueError` for another form, and for a cell that is no tenant with both accounts, whose stops nobody could read.
    """
    found, tenants = _at(data, CELLS), _at(data, TENANTS)
    where = ".".join(CELLS)
    cells: dict[str, str] = {}
    for token, cell in found.items() if isinstance(found, dict) else [("", found)]:
        if not is_token(token) or not isinstance(cell, str) or _CELL.fullmatch(cell) is None:
            raise ValueError(f"{where} {token[:64]!r} names no cell")
        tenant = tenants.get(cell) if isinstance(tenants, dict) else None
        if cell != DEFAULT and not (isinstance(tenant, dict) and {"account", "streams"} <= tenant.keys()):
            raise ValueError(f"{where} {cell!r} is no tenant with `account` and `streams`")
        cells[token] = cell
    if len(set(cells.values()) - {DEFAULT}) > MOST_CELLS:
        raise ValueError(f"{where} names over {MOST_CELLS} cells")
    return MappingProxyType(cells)


def _at(data: DataDocument, path: tuple[str, ...]) -> Json:
    found: Json = data
    for name in path:
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found
