"""Every stable code and every step has exactly one entry, whose advice and page are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sealbus.agents.cli.explanations import CODES, FINDINGS, STEPS, CodeText, Fault, page_named
from sealbus.envelopes.errors import Code
from sealbus.envelopes.export.finding import FindingCode

ROOT = Path(__file__).parents[3]
ALL = [
    *(pytest.param(text, id=f"code-{code}") for code, text in CODES.items()),
    *(pytest.param(text, id=f"finding-{code}") for code, text in FINDINGS.items()),
]


def test_each_code_has_an_entry_and_no_entry_is_without_a_code() -> None:
    assert list(CODES) == list(Code)
    assert list(FINDINGS) == list(FindingCode)


def test_the_steps_are_those_of_the_specification() -> None:
    text = (ROOT / "envelopes" / "SPEC.md").read_text()
    assert sorted(STEPS) == sorted({int(number) for number in re.findall(r"^\*\*Step ([0-9]+)\.", text, re.MULTILINE)})


def test_the_codes_of_the_specification_are_these() -> None:
    section = (ROOT / "envelopes" / "SPEC.md").read_text().split("\n## 10. Codes")[1].split("\n## 11")[0]
    assert set(re.findall(r"^\| `([a-z_]+)`", section, re.MULTILINE)) <= {str(one) for one in CODES}


@pytest.mark.parametrize("text", ALL)
def test_an_entry_is_made_of_short_sentences(text: CodeText) -> None:
    for one in (text.meaning, text.advice):
        assert re.fullmatch(r"[A-Z][^\n]*[.]", one)
        assert len(one) <= 120
        assert one.isascii()
    assert text.fault in Fault


@pytest.mark.parametrize("text", ALL)
def test_the_page_of_an_entry_is_there(text: CodeText) -> None:
    name, _, anchor = text.page.partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / name).read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
    assert not anchor or anchor in anchors


def test_a_page_is_named_as_readers_without_the_repository_find_it() -> None:
    assert page_named("docs/login.md") == "page login of the documentation"
    assert page_named("envelopes/SPEC.md#9-limits") == "page spec of the documentation, under '9 limits'"
    assert CODES[Code.APPROVAL_WEAK].place == "page approvals of the documentation, under 'what no policy lifts'"


def test_each_fault_is_that_of_some_code() -> None:
    assert {text.fault for text in (*CODES.values(), *FINDINGS.values())} == set(Fault)
