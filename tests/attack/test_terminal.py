"""Names, reasons and bodies that try to write to the terminal of who looks at them: markup, control, direction, length."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.audit.entries import print_entry
from sealbus.agents.cli.bus import task
from sealbus.agents.cli.explain import command
from sealbus.agents.cli.output import explanation_lines, log_to_stderr, note, print_error, print_table
from sealbus.bus.audit.trail import Finding
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.denial import Explanation, Remedy, RemedyKind
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, Denied

HOSTILE = [
    "[bold red]x[/bold red][/]",
    "[link=https://evil.example]click[/link]",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe\u2066\u200f",
    "a\rsealbus: forged\n[denied]",
    "\x9b31m\x00\x7f",
    "\ud800 half",
    "[" * 500,
    "x" * 10_000,
]
OBEYED = {"\x1b", "\x07", "\x9b", "\x00", "\x7f", "\r", "\u202e", "\u2066", "\u200f", "\ud800"}


def harmless(shown: str) -> bool:
    return not OBEYED & set(shown)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_shows_all_of_it_and_obeys_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(text, (text, "other"), [(text, "[red]y[/]")])
    out = capsys.readouterr().out
    assert harmless(out)
    assert "[red]y[/]" in out
    visible = text.split("\n")[0].encode("unicode_escape").decode("ascii")
    assert visible in out


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError,
        BusUnavailable,
        lambda text: RemoteError("sold_out", text, text),
        lambda text: Denied(text, (text,), (Remedy(kind=RemedyKind.ASK, whom="Bob"),)),
    ],
)
def test_an_error_is_shown_and_its_lines_cannot_be_taken_for_ours(
    error: object, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(error)
    print_error(error(text))
    lines = capsys.readouterr().err.splitlines()
    assert harmless("".join(lines))
    assert lines[0].startswith("sealbus: ")
    assert all(line.startswith("  ") for line in lines[1:])


@pytest.mark.parametrize("text", HOSTILE)
def test_notes_reasons_and_who_denied(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    note(text)
    assert harmless(capsys.readouterr().err)
    for line in explanation_lines(Explanation((text,))):
        assert harmless(line)
        assert "\n" not in line


@pytest.mark.parametrize("text", [one for one in HOSTILE if len(one) < 256])
def test_the_status_of_a_task(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = replace(Status(state=State.REJECTED, sequence=1, code="sold_out"))
    object.__setattr__(status, "note", text)
    object.__setattr__(status, "reasons", (text,))
    task.print_status(status, as_json=False)
    out = capsys.readouterr().out
    assert harmless(out)
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_a_finding(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_entry(Finding(sequence=1, stored=5, subject=text, code=text, step=9, detail=text), as_json=False)
    assert harmless(capsys.readouterr().err)


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """Set the level of all loggers back, which others' tests rely on."""
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_log_line_and_a_traceback(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "stderr", written)
    log_to_stderr("50 %: ")
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("sealbus.test").exception("handler said %s", text)
    monkeypatch.undo()
    lines = written.getvalue().split("\n")
    assert harmless("".join(lines))
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR 50 %: sealbus\.test: handler said ", lines[0])
    assert lines[1] == "Traceback (most recent call last):"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_log_line_of_json(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "stderr", written)
    log_to_stderr("process 1: ", as_json=True)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("sealbus.test").exception("handler said %s", text)
    logging.getLogger("sealbus.test").warning("plain")
    monkeypatch.undo()
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert harmless(written.getvalue())
    assert (first["level"], first["process"], first["logger"]) == ("ERROR", "process 1", "sealbus.test")
    assert f"handler said {text}".startswith(first["message"].partition("... (")[0])
    assert len(first["message"]) < 4_200
    assert first["exception"].startswith("Traceback (most recent call last):")
    assert "exception" not in second
    assert datetime.fromisoformat(second["time"]).tzinfo is not None


def test_a_long_line_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    for as_json in (False, True):
        written = io.StringIO()
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        monkeypatch.setattr(sys, "stderr", written)
        log_to_stderr(as_json=as_json)
        logging.getLogger("sealbus.test").warning("%s", "x" * 100_000)
        monkeypatch.undo()
        assert len(written.getvalue()) < 5_000
        assert "more)" in written.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_note_is_a_line_of_json_where_those_are_logged(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "stderr", written)
    # Whatever the level: a note is to be read.
    log_to_stderr(as_json=True, level=logging.ERROR)
    note(text)
    monkeypatch.undo()
    assert harmless(written.getvalue())
    [line] = written.getvalue().splitlines()
    said = json.loads(line)
    assert said["level"] == "INFO"
    assert text.startswith(said["message"].partition("... (")[0])


def test_a_usage_error_does_not_repeat_it_raw() -> None:
    for text in HOSTILE[:6]:
        assert harmless(CliRunner().invoke(command, [text]).stderr)
