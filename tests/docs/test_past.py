"""What docs/past.md tells of settings, changes and reasons is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from sealbus.agents.runtime.settings.schema import AuditTable, EdgeTable, StreamsTable
from sealbus.policies.backtest.recorded import Change, NotReplayable
from sealbus.policies.backtest.report import GROUPS, BacktestReport
from sealbus.policies.explain.explanation import Unexplained

PAST = (Path(__file__).parent.parent.parent / "docs" / "past.md").read_text(encoding="utf-8")


def test_its_settings_are_settings() -> None:
    audit, edge, people = (
        tomllib.loads(text) for text in re.findall(r"^```toml\n(.*?)^```$", PAST, re.MULTILINE | re.DOTALL)
    )
    assert AuditTable.model_validate(audit["audit"]).redact["task.payroll.>"]
    assert EdgeTable.model_validate(edge["edge"]).pseudonym_key is not None
    assert EdgeTable.model_validate(people["edge"]).pseudonyms == "random"
    assert StreamsTable.model_validate(people["streams"]).max_bytes.people == 64 << 20


def test_every_change_is_explained_and_no_other() -> None:
    rows = re.findall(r"^\| (`.*?) \|", PAST, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(.*?)`", row)} == {str(change) for change in Change}


def test_every_reason_for_not_asking_again_is_named() -> None:
    assert [why for why in NotReplayable if f"`{why}`" not in PAST] == []


def test_every_cause_for_no_explanation_is_named() -> None:
    assert [why for why in Unexplained if f"`{why}`" not in PAST] == []


def test_what_a_limit_may_be_set_for_is_named() -> None:
    assert [name for name in BacktestReport().counted() if f"`{name}`" not in PAST] == []
    assert f"{GROUPS:,} different values" in PAST
