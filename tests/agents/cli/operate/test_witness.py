"""`sealbus witness`: a key of either type for its owner alone, and its verifier key."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.operate.witness import command
from sealbus.agents.control.witness.keys import load_witness_keys
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.cosignature import CosignatureType, CosignatureVerifier

NAME = "witness.example.org/w1"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize(
    ("options", "kind"),
    [((), CosignatureType.ML_DSA_44), (("--type", "ed25519"), CosignatureType.ED25519)],
    ids=["default", "ed25519"],
)
def test_a_key_is_made_once_and_shown(tmp_path: Path, options: tuple[str, ...], kind: CosignatureType) -> None:
    file = tmp_path / "w.key"
    text = run("keygen", NAME, file, *options).strip()
    [signer] = load_witness_keys([file])
    assert CosignatureVerifier.parse(text) == signer.verifier
    assert (signer.verifier.name, signer.verifier.type) == (NAME, kind)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("key", file).strip() == text
    assert json.loads(run("key", file, "--json")) == {"name": NAME, "file": str(file), "verifier": text}
    with pytest.raises(ConfigurationError, match="exists already"):
        run("keygen", NAME, file)


def test_what_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a witness"):
        run("keygen", "a name", tmp_path / "w.key")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        run("keygen", NAME, tmp_path / "absent" / "w.key")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run("key", tmp_path / "w.key")
    run("keygen", NAME, tmp_path / "w.key")
    for data in (b"", b"\xff", (tmp_path / "w.key").read_bytes()[:-9]):
        file = tmp_path / "other.key"
        file.write_bytes(data)
        file.chmod(0o600)
        with pytest.raises(ConfigurationError, match="is not a key of a witness"):
            run("key", file)
    (tmp_path / "w.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        run("key", tmp_path / "w.key")
