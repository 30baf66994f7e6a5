"""What the demonstration leaves waits for the log to hold everything; the rest is tests/integration/test_demo.py's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sealbus.agents.dev.demo import stage as evidence
from sealbus.agents.dev.demo.stage import Stage, leave_evidence
from sealbus.agents.dev.settings_file import DevLog
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.records.notary import CheckpointRecord
from sealbus.envelopes.trust.spiffe_id import TrustDomain


async def test_a_log_that_does_not_catch_up_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DevLog.prepared(tmp_path, TrustDomain("example.org"))
    sizes = iter([0, 3, 7])
    monkeypatch.setattr(evidence, "make_root", lambda *_, **__: cast("Root", None))
    monkeypatch.setattr(evidence, "_size", lambda *_: next(sizes, 7))
    monkeypatch.setattr(evidence, "WITHIN", 0.3)
    stage = SimpleNamespace(
        entries=[SimpleNamespace(sequence=5, record=None), SimpleNamespace(sequence=7, record=None)],
        backstage=SimpleNamespace(settings=None),
    )
    kept = tmp_path / "evidence"
    kept.mkdir()
    with pytest.raises(TimeoutError):
        await leave_evidence(cast("Stage", stage), log, kept)
    assert kept.is_dir(), "what was there before is only replaced by a whole export"


async def test_a_record_of_a_checkpoint_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notary makes no checkpoint for it, so that a log which ends with it would never hold it."""
    log = DevLog.prepared(tmp_path, TrustDomain("example.org"))

    async def export_log(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(missing_count=0, entries=8)

    monkeypatch.setattr(evidence, "make_root", lambda *_, **__: SimpleNamespace(encode=bytes))
    monkeypatch.setattr(evidence, "_size", lambda *_: 8)
    monkeypatch.setattr(evidence, "log_files", lambda _: None)
    monkeypatch.setattr(evidence, "export_log", export_log)
    monkeypatch.setattr(evidence, "WITHIN", 0.3)
    stage = SimpleNamespace(
        entries=[
            SimpleNamespace(sequence=7, record=None),
            SimpleNamespace(sequence=8, record=CheckpointRecord(note=b"note")),
        ],
        backstage=SimpleNamespace(settings=None),
        operator=None,
    )
    assert await leave_evidence(cast("Stage", stage), log, tmp_path / "evidence") == 8


def test_a_log_without_a_checkpoint_has_nothing_yet(tmp_path: Path) -> None:
    assert evidence._size(tmp_path, cast("Root", None)) == 0
