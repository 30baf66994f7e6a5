"""The development environment's log: a key of its own that lasts, and a name that says what it is."""

from __future__ import annotations

import stat
from pathlib import Path

from sealbus.agents.dev.settings_file import DevLog
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.envelopes.trust.spiffe_id import TrustDomain

DOMAIN = TrustDomain("example.org")


def test_its_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    log = DevLog.prepared(tmp_path, DOMAIN)
    assert stat.S_IMODE(log.key.stat().st_mode) == 0o600
    verifier = NoteVerifier.parse(log.verifier)
    assert verifier.name == log.origin == "example.org/development/audit"
    assert DevLog.prepared(tmp_path, DOMAIN) == log
    assert DevLog.prepared(tmp_path, DOMAIN).verifier == log.verifier


def test_another_state_folder_has_another_key(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert DevLog.prepared(tmp_path, DOMAIN).verifier != DevLog.prepared(tmp_path / "other", DOMAIN).verifier
