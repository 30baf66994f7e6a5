"""From settings to a notary: each thing that is missing is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.notary import ORIGIN

from sealbus.agents.control.notary import open_notary
from sealbus.agents.control.notary.keys import make_key_file
from sealbus.agents.control.notary.role import notary_options
from sealbus.agents.runtime.settings.schema import NotaryTable
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint


def test_what_the_settings_say(tmp_path: Path) -> None:
    old, new = (make_key_file(tmp_path / name, ORIGIN) for name in ("old.key", "new.key"))
    previous = tmp_path / "previous"
    previous.write_bytes(sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), [old]))
    table = NotaryTable(
        origin=ORIGIN,
        keys=(tmp_path / "old.key", tmp_path / "new.key"),
        folder=tmp_path / "log",
        stream="AUDIT-2026",
        previous=previous,
        lease=5,
        whole=True,
    )
    options = notary_options(table)
    assert options.plan.verifiers == (old.verifier, new.verifier)
    assert (options.plan.origin, options.plan.stream, options.plan.whole) == (ORIGIN, "AUDIT-2026", True)
    assert (options.plan.previous, options.lease) == (previous.read_bytes(), 5.0)


def test_what_is_missing_or_wrong(tmp_path: Path) -> None:
    make_key_file(tmp_path / "a.key", ORIGIN)
    keys = (tmp_path / "a.key",)
    (tmp_path / "note").write_bytes(b"nonsense")
    for table, what in [
        (NotaryTable(), "origin is not set"),
        (NotaryTable(origin=ORIGIN), "keys is not set"),
        (NotaryTable(origin=ORIGIN, keys=keys, previous=tmp_path / "missing"), "cannot be read"),
        (NotaryTable(origin=ORIGIN, keys=keys, previous=tmp_path / "note"), "is not a checkpoint"),
    ]:
        with pytest.raises(ConfigurationError, match=what):
            notary_options(table)


def settings_file(folder: Path, *more: str) -> Path:
    path = folder / "sealbus.toml"
    lines = [
        'trust_domain = "example.org"',
        'nats = ["tls://127.0.0.1:4222"]',
        "[policy]",
        'engine = "embedded"',
        *more,
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


async def test_a_notary_without_a_folder_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    make_key_file(tmp_path / "a.key", ORIGIN)
    lines = ("[control.notary]", f'origin = "{ORIGIN}"', f'keys = ["{tmp_path / "a.key"}"]')
    settings = load_settings(settings_file(tmp_path, *lines), environment={})
    with pytest.raises(ConfigurationError, match="folder is not set"):
        async with asyncio.timeout(60), open_notary(settings):
            pass


def test_without_a_table_there_is_no_notary(tmp_path: Path) -> None:
    settings = load_settings(settings_file(tmp_path), environment={})
    assert settings.control.notary == NotaryTable()
    with pytest.raises(ConfigurationError, match="lease"):
        load_settings(settings_file(tmp_path, "[control.notary]", "lease = 0.5"), environment={})
