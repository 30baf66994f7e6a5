"""The cells of a registry: which agents have streams apart from the others' (docs/cells.md).

`data.sealbus.registry.cells` has the cell of a subject token; a token that is not there is in the default cell. One that was
moved names the cell before as well, and since when (microseconds) its messages are in the new one::

    {"billing": "east", "ledger": {"cell": "east", "before": "default", "since": 1764748800000000}}

The callout places a workload by it, and every process finds by it the streams of those whom it tells something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.names import is_token
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.decision.placement import Placement
from sealbus.policies.decision.request import rfc3339

CELLS: Final = ("sealbus", "registry", "cells")
TENANTS: Final = ("sealbus", "registry", "tenants")
WORKLOADS: Final = ("sealbus", "registry", "workloads")
AGENTS: Final = ("sealbus", "registry", "agents")
MOST_CELLS: Final = 16
"""Cells beside the default one: each costs every process a reader of its own."""
OPERATOR: Final = "operator"
"""The role of those who make streams."""
DEFAULT: Final = "default"
"""The cell, and the tenant, of those who are named in no other."""

AHEAD: Final = 60 * SECOND
"""How far ahead a move must be when it is pushed, in microseconds, so that every process has the policy by then."""
MOVING: Final = 33 * 86_400 * SECOND
"""For how long after its time the former cell has something of who was moved: a day longer than HELD keeps a value."""

_CELL: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_IN_DEFAULT: Final = Placement(DEFAULT)
_LATEST: Final = 2**63
"""Above every time."""


def cells_of(data: DataDocument) -> Mapping[str, Placement]:
    """Return the cell of each subject token that the registry names.

    Raises `ValueError` for another form, and for a cell that is no tenant with both accounts, whose stops nobody could read.
    Where there are cells, a workload in a tenant that is none raises it, too, because it could not read the stops of others.
    Only an operator that is no agent may be there, to make the streams of a cell before it is one.
    """
    found, tenants = _at(data, CELLS), _at(data, TENANTS)
    where = ".".join(CELLS)
    placements: dict[str, Placement] = {}
    for token, value in found.items() if isinstance(found, dict) else [("", found)]:
        placement = _placement(value)
        if not is_token(token) or placement is None:
            raise ValueError(f"{where} {token[:64]!r} names no cell")
        for cell in placement.cells:
            tenant = tenants.get(cell) if isinstance(tenants, dict) else None
            if cell != DEFAULT and not (isinstance(tenant, dict) and {"account", "streams"} <= tenant.keys()):
                raise ValueError(f"{where} {cell!r} is no tenant with `account` and `streams`")
        placements[token] = placement
    others = {cell for placement in placements.values() for cell in placement.cells} - {DEFAULT}
    if len(others) > MOST_CELLS:
        raise ValueError(f"{where} names over {MOST_CELLS} cells")
    if others and (stray := _in_no_cell(data, [DEFAULT, *others])):
        raise ValueError(f"{'.'.join(WORKLOADS)} {stray[:256]!r} is in a tenant that is no cell, and there are cells")
    return MappingProxyType(placements)


def _placement(value: Json) -> Placement | None:
    """Return where a token is, or `None` for another form."""
    if isinstance(value, str):
        return Placement(value) if _CELL.fullmatch(value) else None
    if not isinstance(value, dict) or value.keys() != {"cell", "before", "since"}:
        return None
    cell, before, since = value["cell"], value["before"], value["since"]
    if not (isinstance(cell, str) and isinstance(before, str) and type(since) is int and 0 < since < _LATEST):
        return None
    if cell == before or _CELL.fullmatch(cell) is None or _CELL.fullmatch(before) is None:
        return None
    return Placement(cell, before, since)


def check_moves(present: Mapping[str, Placement], pushed: Mapping[str, Placement], now: int) -> None:
    """Check that the cells `pushed` may follow the `present` ones at `now` (microseconds).

    Raises `ConfigurationError` for a change by which a message to an agent would be in no cell that the agent reads, or in
    two: a move that begins within `AHEAD`, or a change of one that has begun and not ended.
    """
    for token in sorted(present.keys() | pushed.keys()):
        old, new = present.get(token, _IN_DEFAULT), pushed.get(token, _IN_DEFAULT)
        if old != new and (problem := _move_problem(old, new, now)):
            raise ConfigurationError(f"{'.'.join(CELLS)} {token[:64]!r} {problem}")


def _move_problem(old: Placement, new: Placement, now: int) -> str:
    """Return why `new` may not follow `old`, or an empty text."""
    left = old.cell
    if old.before and old.since >= now + AHEAD:
        if new == Placement(old.before):
            # Taken back.
            return ""
        if new.cells != old.cells:
            return f"is moved to {old.cell!r} soon: to move it elsewhere, take that back first, by a push of {old.before!r}"
        left = old.before
    elif old.before and old.since + MOVING > now:
        end = rfc3339(-(-(old.since + MOVING) // SECOND))
        return (
            f"is being moved from {old.before!r} to {old.cell!r}: leave its entry as it is until {end}, which is 33 days "
            "after `since`; nothing overrides this, because what was said and stored before would be lost or done twice"
        )
    if new.before and new.before != left:
        return f"says `before` {new.before!r}, and the policy in force has it in {left!r}"
    if new.before and new.since < now + AHEAD:
        first = now + AHEAD
        return f"says `since` {new.since}: it must be {first} or later, {AHEAD // SECOND} s from now by this machine's clock"
    return ""


def bucket_and_cell(text: str) -> tuple[str, str]:
    """Return the bucket and the cell of `<bucket>@<cell>`; of `<bucket>` alone the cell is empty, our own.

    Raises `ConfigurationError` for another form. Whether there is such a cell, only its answer says.
    """
    bucket, at, cell = text.partition("@")
    if not is_token(bucket):
        raise ConfigurationError(f"{bucket[:255]!r} cannot be the name of a bucket")
    if at and _CELL.fullmatch(cell) is None:
        raise ConfigurationError(f"{cell[:255]!r} cannot be the name of a cell")
    return bucket, cell


def _in_no_cell(data: DataDocument, cells: Sequence[str]) -> str:
    """Return a workload that the registry puts into another tenant than `cells`; empty if there is none."""
    workloads, agents = _at(data, WORKLOADS), _at(data, AGENTS)
    for workload, placed in workloads.items() if isinstance(workloads, dict) else ():
        if not isinstance(placed, dict) or placed.get("tenant") in cells:
            continue
        is_agent = isinstance(agents, dict) and workload in agents
        if is_agent or placed.get("role") != OPERATOR:
            return workload
    return ""


def _at(data: DataDocument, path: tuple[str, ...]) -> Json:
    found: Json = data
    for name in path:
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found
