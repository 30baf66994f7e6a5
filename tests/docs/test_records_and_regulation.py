"""The map of records to regulation names only fields that there are, and claims nothing that nobody can promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "records-and-regulation.md").read_text(encoding="utf-8")
SPEC = (ROOT / "envelopes" / "SPEC.md").read_text(encoding="utf-8")
FIELD = re.compile(r"`(header|decision|outcome|bundle|policy|checkpoint|denials)\.(\w+)`")


def keys(table: str) -> set[str]:
    """Return the keys of a record, or of the header, by the specification."""
    start = SPEC.index("## 3. Header") if table == "header" else SPEC.index(f"\n`{table}`: ", SPEC.index("## 8. Audit"))
    rows = re.search(r"(?:^\|.*\n)+", SPEC[start:], re.MULTILINE)
    assert rows is not None
    return {key for row in rows[0].splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_fields_are_fields() -> None:
    named = FIELD.findall(PAGE)
    assert len(named) > 40
    assert [(table, key) for table, key in named if key not in keys(table)] == []


@pytest.mark.parametrize(("table", "key"), [("decision", "alw"), ("header", "par"), ("denials", "iss")])
def test_the_specification_is_read(table: str, key: str) -> None:
    assert key in keys(table)
    assert "none" not in keys(table)


def test_nothing_is_promised() -> None:
    assert re.search(r"complian|conform|certif", PAGE, re.IGNORECASE) is None


def test_each_table_has_what_is_not_answered() -> None:
    assert len(re.findall(r"^\| .* \| (?:not answered|what does not) \|$", PAGE, re.MULTILINE)) == 4
