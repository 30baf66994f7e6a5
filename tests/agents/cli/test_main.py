"""How the command's errors become one line and an exit code."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys

import click
import pytest

from sealbus.agents.cli.explanations import CODES
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, Denied, EnvelopeError

root = importlib.import_module("sealbus.agents.cli.main")
"""By its path: the package gives the name to the function."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Denied("no", ("not_owner",), (Remedy(kind=RemedyKind.ASK, whom="Bob"),)), root.EXIT_DENIED),
        (EnvelopeError(Code.BAD_SIGNATURE, 8), root.EXIT_UNVERIFIED),
        (BusUnavailable("away"), root.EXIT_ERROR),
        (RemoteError("sold_out", "the task was failed", "none left"), root.EXIT_ERROR),
        (ExceptionGroup("one", [BusUnavailable("away")]), root.EXIT_ERROR),
        (click.UsageError("what"), 2),
        (click.ClickException("[late]"), 1),
        (ExceptionGroup("one", [ExceptionGroup("more", [click.UsageError("what")])]), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*, standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(root, "root", fail)
    with pytest.raises(SystemExit) as ended:
        root.main()
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert ("  not_owner\n  to do: ask Bob\n" in err) == isinstance(error, Denied)
    assert ("[sold_out]\n  none left\n" in err) == isinstance(error, RemoteError)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("flushed", [False, True])
def test_a_reader_that_goes_away_ends_it_as_every_other_tool(*, wrapped: bool, flushed: bool) -> None:
    """By SIGPIPE, with nothing on stderr: also where the error came through tasks, or only with what was buffered."""
    script = f"""
import importlib, click
main = importlib.import_module("sealbus.agents.cli.main")
def root(*, standalone_mode):
    input()
    try:
        print("x" * 10, flush={flushed})
    except BrokenPipeError as error:
        if {wrapped}:
            raise ExceptionGroup("tasks", [error])
        raise
main.root = root
main.main()
"""
    command = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    command.stdout.close()
    command.stdout = None
    _, said = command.communicate("go\n", timeout=60)
    assert (command.returncode, said) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            BusUnavailable("away"),
            [
                "sealbus: away [bus_unavailable]",
                f"  next: {CODES[Code.BUS_UNAVAILABLE].advice} (sealbus explain bus_unavailable)",
            ],
        ),
        (
            RemoteError("sold_out", "failed", "none\nleft\x1b[2J"),
            ["sealbus: failed [sold_out]", "  none\\nleft\\x1b[2J"],
        ),
        (
            FileNotFoundError(2, "No such file or directory", "key\u202e.pem"),
            [
                "sealbus: key\\u202e.pem: No such file or directory [configuration]",
                f"  next: {CODES[Code.CONFIGURATION].advice} (sealbus explain configuration)",
            ],
        ),
        (ConfigurationError("a:1: one\nb:2: two"), ["sealbus: a:1: one [configuration]", "  b:2: two"]),
    ],
)
def test_an_error_says_what_why_and_what_next(
    error: Exception, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*, standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(root, "root", fail)
    with pytest.raises(SystemExit) as ended:
        root.main()
    assert ended.value.code == root.EXIT_ERROR
    assert capsys.readouterr().err.splitlines()[: len(lines)] == lines


def test_what_is_no_error_of_ours_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*, standalone_mode: bool) -> None:
        raise ConnectionError("without a file")

    monkeypatch.setattr(root, "root", fail)
    with pytest.raises(ConnectionError):
        root.main()
