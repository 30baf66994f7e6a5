"""Print results on stdout, as tables or as JSON with one object a line; print everything else on stderr."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.denial import Explanation, Remedy, RemedyKind
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.envelopes.errors import SealbusError


_logger: Final = logging.getLogger("sealbus")

_WIDEST: Final = 1_000_000
"""Columns of a table in a pipe."""
_LINE: Final = 4_096
"""Most characters of a log line's message."""
_TRACEBACK: Final = 16_384


def print_json(value: object) -> None:
    """Print one JSON value on one line of stdout at once, escaped as ASCII if it holds a lone surrogate."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, separators=(",", ":"), default=str)
    click.echo(text)
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, as wide as the terminal, and in a pipe as wide as its cells.

    All of it is plain text, without markup or control sequences.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title), "table.title") if title else None, title_justify="left")
    for column in columns:
        table.add_column(Text(printable(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    # A program that reads the pipe should find each cell on one line.
    Console(width=None if sys.stdout.isatty() else _WIDEST).print(table)


def print_facts(title: Sequence[str], facts: Mapping[str, object], *, as_json: bool) -> None:
    """Print facts by name: as a table of two columns under `title`, or as one JSON object."""
    if as_json:
        print_json(facts)
    else:
        print_table("", title, [(name, str(value)) for name, value in facts.items()])


def print_error(error: SealbusError) -> None:
    """Print an error on stderr: the failure with its code in brackets, the reasons, and what to do next.

    Texts of the other side are indented and made visible, so that nobody takes them for texts of this command.
    """
    from sealbus.agents.cli.explanations import CODES
    from sealbus.envelopes.errors import Denied

    first, *more = (error.detail or str(error.code)).split("\n")
    note("\n".join((f"sealbus: {first} [{error.code}]", *more)))
    remark = getattr(error, "note", "")
    if remark:
        note(f"  {printable(remark)}")
    if isinstance(error, Denied):
        for line in explanation_lines(error.explanation):
            note(f"  {line}")
    text = next((text for code, text in CODES.items() if code == error.code), None)
    if text is not None:
        note(f"  next: {text.advice} (sealbus explain {error.code})")


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Yield lines for the reasons of a denial, the agents that denied, and the remedies, with commands if there are any."""
    yield from map(printable, explanation.reasons)
    # A single agent is the one that was asked.
    if len(explanation.via) > 1:
        yield printable(
            "denied by " + ", by ".join(f"{denial.agent} for {denial.action}" for denial in explanation.via)
        )
    yield from map(_to_do, explanation.remedies)


def _to_do(remedy: Remedy) -> str:
    match remedy.kind:
        case RemedyKind.LOGIN:
            strong = ["--acr", remedy.acr] if remedy.acr else []
            fresh = ["--max-age", str(remedy.max_age)] if remedy.max_age is not None else []
            # Quoted, because another agent's policy chose the value, and a person pastes the line into a shell.
            return f"to do: log in again: {shlex.join(['sealbus', 'login', *strong, *fresh])}"
        case RemedyKind.SCOPE:
            return f"to do: use an access token with the scope {remedy.scope}"
        case RemedyKind.APPROVAL:
            return f"to do: submit it as a task, which can be approved: sealbus pub task.{remedy.action} BODY"
        case RemedyKind.ASK:
            return f"to do: ask {remedy.whom}"
        case RemedyKind.LATER:
            return f"to do: try again in {remedy.after} s"


def note(text: str) -> None:
    """Print one line for people on stderr, made visible (`printable`); further lines of `text` are indented.

    If the log is JSON, the text becomes a line of the log.
    """
    if any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.root.handlers):
        # Stderr then holds nothing but JSON. The line is written at any log level.
        _logger.handle(_logger.makeRecord(_logger.name, logging.INFO, "", 0, text, (), None))
        return
    click.echo("\n  ".join(map(printable, text.split("\n"))), err=True)


class _VisibleFormatter(logging.Formatter):
    """Formats a record on one printable line, with the lines of a traceback under it."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802  logging's name
        del datefmt
        return shown_time(int(record.created * SECOND))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return printable(_bounded(super().formatMessage(record), _LINE))

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's name
        return "\n".join(map(printable, _bounded(super().formatException(ei), _TRACEBACK).split("\n")))


class _JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object of the fields in docs/telemetry.md."""

    def __init__(self, process: str) -> None:
        super().__init__()
        # Imported here, because most commands log nothing.
        from sealbus.bus.telemetry import FIELDS

        self._process, self._fields = process, FIELDS

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": shown_time(int(record.created * SECOND)),
            "level": record.levelname,
            **({"process": self._process} if self._process else {}),
            "logger": record.name,
            "message": _bounded(record.getMessage(), _LINE),
            **getattr(record, self._fields, {}),
        }
        if record.exc_info:
            fields["exception"] = _bounded(self.formatException(record.exc_info), _TRACEBACK)
        # As ASCII, so that texts of others cannot control a terminal.
        return json.dumps(fields, separators=(",", ":"))


def log_to_stderr(prefix: str = "", *, as_json: bool = False, level: int = logging.INFO) -> None:
    """Log from `level` on to stderr, with `prefix` before each logger's name. Texts of others cannot control the terminal.

    With `as_json`, notes and errors are lines of the log, too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonFormatter(prefix.strip(": "))
        if as_json
        else _VisibleFormatter(f"%(asctime)s %(levelname)s {prefix.replace('%', '%%')}%(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler])


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more)"


def renamed(document: Mapping[str, object], **names: str) -> dict[str, object]:
    """Return `document` with some members under other names: `names` has the new name of each."""
    return {names.get(name, name): value for name, value in document.items()}


def as_mapping(value: object) -> Mapping[str, object]:
    """Return `value` if it is a mapping, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


@contextmanager
def progress_bar(activity: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr. The given function takes the amount that is done, and the total."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(activity, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
