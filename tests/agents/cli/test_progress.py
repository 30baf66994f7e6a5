"""A bar where stderr is a terminal; silence where it is not."""

from __future__ import annotations

import io
import sys

import pytest

from sealbus.agents.cli.output import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()])
def test_it_is_drawn_on_a_terminal_only(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("verifying") as progress:
        progress(1, 2)
        progress(2, 2)
    assert ("verifying" in stream.getvalue()) == stream.isatty()
