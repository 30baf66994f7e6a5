"""The root file of a deployment, made where its log begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.kept_log import kept_files, log_settings, root_of, written
from support.log_world import NOTARY, make_world

from sealbus.agents.evidence.trust_root import make_root
from sealbus.envelopes.errors import ConfigurationError

WORLD = make_world(1, 20)
KEYS = [key.vkey for key in WORLD.keys]


def test_it_trusts_what_the_log_began_with(tmp_path: Path) -> None:
    log = written(kept_files(WORLD), tmp_path / "log")
    held = tmp_path / "held"
    held.write_bytes(WORLD.files()["checkpoint"])
    root = make_root(log_settings(tmp_path), keys=KEYS, notaries=[NOTARY], checkpoints=[held], folder=log)
    expected = root_of(WORLD)
    assert (root.origin, root.keys, root.bundles) == (expected.origin, expected.keys, expected.bundles)
    assert root.notaries == expected.notaries
    assert [one.checkpoint.size for one in root.held] == [len(WORLD.frames)]
    assert root.encode() == type(root).parse(root.encode()).encode()


def test_the_notary_is_the_workload_of_that_name(tmp_path: Path) -> None:
    log = written(kept_files(WORLD), tmp_path / "log")
    root = make_root(log_settings(tmp_path), keys=KEYS, folder=log)
    assert {str(one) for one in root.notaries} == {"spiffe://example.org/agent/notary"}


def test_one_key_may_serve_the_logs_of_several_periods(tmp_path: Path) -> None:
    log = written(kept_files(WORLD), tmp_path / "log")
    said = log_settings(tmp_path, 'origin = "log.example.org/audit/2026-11"')
    assert make_root(said, keys=KEYS, folder=log).origin == "log.example.org/audit/2026-11"
    assert make_root(said, keys=KEYS, folder=log, origin="log.example.org/audit/2").origin == "log.example.org/audit/2"


def test_what_is_not_as_it_must_be(tmp_path: Path) -> None:
    log = written(kept_files(WORLD), tmp_path / "log")
    with pytest.raises(ConfigurationError, match="--key"):
        make_root(log_settings(tmp_path), keys=["no key"], folder=log)
    with pytest.raises(ConfigurationError, match="--key or --notary"):
        make_root(log_settings(tmp_path), keys=KEYS, notaries=["no id"], folder=log)
    with pytest.raises(ConfigurationError, match="no trust bundle"):
        make_root(log_settings(tmp_path), keys=KEYS, folder=tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        make_root(log_settings(tmp_path), keys=KEYS, folder=log, checkpoints=[tmp_path / "none"])
    written({"trust/0": b"no record"}, log)
    with pytest.raises(ConfigurationError, match="not a bundle record"):
        make_root(log_settings(tmp_path), keys=KEYS, folder=log)
