"""The decision records: numbered without gaps, complete in form, in order of date, and all in the index."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
FILES = sorted(path.name for path in FOLDER.glob("*.md") if path.name != "README.md")
SECTIONS = ["Context", "Decision", "Alternatives", "Consequences"]

NAME = re.compile(r"(\d{4})-[a-z0-9]+(?:-[a-z0-9]+)*\.md")
FORM = re.compile(
    r"# (?P<number>\d{4}): (?P<title>[^\n]+)\n\n"
    r"- \*\*Date\*\*: (?P<date>[^\n]+)\n"
    r"- \*\*Status\*\*: (?P<status>[^\n]+)\n"
    r"- \*\*Area\*\*: (?P<area>[^\n]+)\n\n"
    r"(?P<sections>## .+)",
    re.DOTALL,
)
SUPERSEDED = re.compile(r"superseded by \[(\d{4})\]\(([^)]+)\)")
ROW = re.compile(r"\| (\d{4}) \| \[([^\]]+)\]\(([^)]+)\) \| ([^|]+) \| (.+) \|")


class Entry(NamedTuple):
    """What a record and its line of the index both say."""

    number: str
    title: str
    name: str
    date: str
    status: str
    area: str


def parsed(name: str, text: str) -> Entry:
    """Return what the record `text` in the file `name` says; raise `ValueError` if its form is wrong."""
    numbered, form = NAME.fullmatch(name), FORM.fullmatch(text)
    if numbered is None or form is None or numbered[1] != form["number"]:
        raise ValueError(f"{name}: not in the form of the template in CONTRIBUTING.md")
    date.fromisoformat(form["date"])
    if len(form["date"]) != len("2026-11-24"):
        raise ValueError(f"{name}: the date is not YYYY-MM-DD")
    if form["status"] != "accepted" and SUPERSEDED.fullmatch(form["status"]) is None:
        raise ValueError(f"{name}: its status is accepted or superseded")
    parts = re.split(r"^## (.+)\n", form["sections"], flags=re.MULTILINE)[1:]
    if parts[::2] != SECTIONS or not all(body.strip() for body in parts[1::2]):
        raise ValueError(f"{name}: its sections are {SECTIONS}, and none is empty")
    return Entry(form["number"], form["title"], name, form["date"], form["status"], form["area"])


def in_index(text: str) -> list[Entry]:
    """Return the records that the index lists, each with its area."""
    entries: list[Entry] = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        area, _, table = section.partition("\n")
        entries += [Entry(row[1], row[2], row[3], row[4], row[5], area) for row in ROW.finditer(table)]
    return entries


def read(name: str) -> Entry:
    return parsed(name, (FOLDER / name).read_text(encoding="utf-8"))


def test_records_are_numbered_without_gaps_in_order_of_date() -> None:
    entries = [read(name) for name in FILES]
    assert [entry.number for entry in entries] == [f"{number:04}" for number in range(1, len(FILES) + 1)]
    assert [entry.date for entry in entries] == sorted(entry.date for entry in entries)
    assert len({entry.title for entry in entries}) == len(entries)


def test_the_index_lists_every_record_as_it_is() -> None:
    listed = in_index((FOLDER / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [read(name) for name in FILES]


def test_what_supersedes_is_a_later_record() -> None:
    for entry in map(read, FILES):
        if (found := SUPERSEDED.fullmatch(entry.status)) is not None:
            assert found[2] in FILES, entry.name
            assert found[2].startswith(found[1]), entry.name
            assert found[1] > entry.number, entry.name


RECORD = """# 0001: Do it

- **Date**: 2026-11-24
- **Status**: accepted
- **Area**: NATS

## Context
A.

## Decision
B.

## Alternatives
C.

## Consequences
D.
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0001:", "0002:"),
        ("2026-11-24", "24.11.2026"),
        ("2026-11-24", "20261124"),
        ("accepted", "maybe"),
        ("accepted", "superseded by 0002"),
        ("## Alternatives\nC.\n\n", ""),
        ("C.\n", "\n"),
        ("- **Area**: NATS\n", ""),
    ],
)
def test_a_record_in_another_form_is_found(old: str, new: str) -> None:
    assert parsed("0001-do-it.md", RECORD) == Entry("0001", "Do it", "0001-do-it.md", "2026-11-24", "accepted", "NATS")
    with pytest.raises(ValueError):  # noqa: PT011  of `date` too
        parsed("0001-do-it.md", RECORD.replace(old, new))


@pytest.mark.parametrize("name", ["1-do-it.md", "0001-Do-It.md", "0001.md", "0001--do.md"])
def test_a_file_of_another_name_is_found(name: str) -> None:
    with pytest.raises(ValueError, match="form"):
        parsed(name, RECORD)
