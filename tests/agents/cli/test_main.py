"""How the command's errors become one line and an exit code."""

from __future__ import annotations

import importlib

import click
import pytest

from sealbus.envelopes.errors import BusUnavailable, Code, Denied, EnvelopeError

root = importlib.import_module("sealbus.agents.cli.main")
"""By its path: the package gives the name to the function."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Denied("no", ("not_owner",)), root.EXIT_DENIED),
        (EnvelopeError(Code.BAD_SIGNATURE, 8), root.EXIT_UNVERIFIED),
        (BusUnavailable("away"), root.EXIT_ERROR),
        (ExceptionGroup("one", [BusUnavailable("away")]), root.EXIT_ERROR),
        (click.UsageError("what"), 2),
        (ExceptionGroup("one", [ExceptionGroup("more", [click.UsageError("what")])]), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*, standalone_mode: bool) -> None:
        raise error

    monkeypatch.setattr(root, "_root", fail)
    with pytest.raises(SystemExit) as ended:
        root.main()
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert ("not_owner" in err) == isinstance(error, Denied)
