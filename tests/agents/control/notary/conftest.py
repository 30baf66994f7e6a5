"""Checkpoints come soon here: a second each would be most of what these tests take."""

from __future__ import annotations

import pytest

from sealbus.agents.control.notary import term


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term, "SECONDS", 0.1)
