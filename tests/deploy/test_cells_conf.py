"""deploy/cells/cells.conf has the accounts of two cells, as the code that `sealbus dev` uses makes them."""

from __future__ import annotations

import json
from pathlib import Path

from sealbus.agents.dev.nats.accounts import CellAccounts, accounts_of_cells

CONF = Path(__file__).parents[2] / "deploy" / "cells" / "cells.conf"
CELLS = (CellAccounts("default"), CellAccounts("east", "EAST", "EAST_AGENTS"))
LIMITS = {"limits": {"max_subscriptions": 8192}}


def test_the_configuration_has_the_accounts_of_both_cells() -> None:
    lines = [line for line in CONF.read_text().splitlines() if line and not line.startswith("#")]
    found = {name: json.loads(block) for name, _, block in (line.partition(": ") for line in lines)}
    assert found == {name: {**account, **LIMITS} for name, account in accounts_of_cells(CELLS).items()}
