"""Results on stdout, notes on stderr."""

from __future__ import annotations

import json

import pytest

from sealbus.agents.cli.output import as_mapping, explanation_lines, note, print_json, print_table
from sealbus.envelopes.denial import NOTHING_TOLD, Denier, Explanation, Remedy, RemedyKind
from sealbus.envelopes.printable import printable


def test_json_is_one_line_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Zoë", "text": "a\nb"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "Zoë" in out
    assert json.loads(out) == {"name": "Zoë", "text": "a\nb"}


def test_a_table_holds_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("streams", ["name", "state"], [["TASKS", "ok"]])
    out = capsys.readouterr().out
    assert all(text in out for text in ("streams", "name", "state", "TASKS", "ok"))


def test_a_note_is_not_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    note("for people")
    assert capsys.readouterr() == ("", "for people\n")


def test_a_note_obeys_nothing_and_its_further_lines_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    note("one \x1b[2J\u202e\nsealbus: forged [denied]\r")
    assert capsys.readouterr().err == "one \\x1b[2J\\u202e\n  sealbus: forged [denied]\\r\n"


def test_a_table_in_a_pipe_is_as_wide_as_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a title", ("cell", "other"), [("x" * 10_000, "[red]y[/]"), ("z", "")])
    out = capsys.readouterr().out
    assert "x" * 10_000 in out
    assert "[red]y[/]" in out
    assert len(out.splitlines()) == 7


def test_only_a_mapping_is_one() -> None:
    assert as_mapping({"a": 1}) == {"a": 1}
    assert as_mapping([1]) == {}


def test_a_table_shows_what_stands_in_it_and_obeys_none_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        "", ("cell",), [("[bold]x[/bold]",), ("[/nothing]",), ("\x1b[31mred\x07",), ("\u202eabc",), ("two\nlines",)]
    )
    shown = capsys.readouterr().out
    for text in ("[bold]x[/bold]", "[/nothing]", r"\x1b[31mred\x07", r"\u202eabc"):
        assert text in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_printable_text_stays_as_it_is() -> None:
    assert printable("ålice <a@b> [x]") == "ålice <a@b> [x]"
    assert printable("a\r\n\x00\U000e0001b\ud800") == r"a\r\n\x00\U000e0001b\ud800"


def test_half_a_character_is_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "ålice \ud800"})
    out = capsys.readouterr().out
    assert out == '{"name":"\\u00e5lice \\ud800"}\n'


def test_a_denial_is_explained_a_line_for_each_thing() -> None:
    told = Explanation(
        ("late", "a\x1b[2J"),
        (
            Remedy(kind=RemedyKind.LOGIN),
            Remedy(kind=RemedyKind.LOGIN, max_age=0),
            Remedy(kind=RemedyKind.LOGIN, acr="urn:x:2 $(id);", max_age=300),
            Remedy(kind=RemedyKind.SCOPE, scope="stock:write"),
            Remedy(kind=RemedyKind.APPROVAL, action="ledger.post"),
            Remedy(kind=RemedyKind.ASK, whom="Frau Müller"),
            Remedy(kind=RemedyKind.LATER, after=90),
        ),
        (
            Denier("spiffe://example.org/agent/planner", "planner.plan", "denied"),
            Denier("spiffe://example.org/agent/stock", "stock.update", "denied"),
        ),
    )
    assert list(explanation_lines(told)) == [
        "late",
        "a\\x1b[2J",
        "denied by spiffe://example.org/agent/planner for planner.plan, by spiffe://example.org/agent/stock for stock.update",
        "to do: log in again: sealbus login",
        "to do: log in again: sealbus login --max-age 0",
        "to do: log in again: sealbus login --acr 'urn:x:2 $(id);' --max-age 300",
        "to do: use an access token with the scope stock:write",
        "to do: submit it as a task, which can be approved: sealbus pub task.ledger.post BODY",
        "to do: ask Frau Müller",
        "to do: try again in 90 s",
    ]
    assert list(explanation_lines(NOTHING_TOLD)) == []
    assert list(explanation_lines(told._replace(remedies=(), via=told.via[:1]))) == ["late", "a\\x1b[2J"]
