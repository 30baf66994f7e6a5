"""`sealbus policy opa-config`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from support.policies import signing_key

from sealbus.agents.cli.policy.group import opa_config
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import key_id, public_pem

NAMES = ["--certificate", "svid.pem", "--private-key", "svid.key", "--trust-bundle", "bundle.pem"]


def test_the_configuration_names_the_key_and_the_files(tmp_path: Path) -> None:
    key = signing_key().public
    (tmp_path / "key.pub").write_text(public_pem(key), encoding="ascii")
    arguments = ["--url", "https://control:8445", "--signer", str(tmp_path / "key.pub"), *NAMES, "--persist", "kept"]
    found = json.loads(CliRunner().invoke(opa_config, arguments).stdout)
    assert list(found["keys"]) == [key_id(key)]
    assert found["services"]["sealbus"]["url"] == "https://control:8445"
    assert found["services"]["sealbus"]["credentials"]["client_tls"]["private_key"] == "svid.key"
    assert found["persistence_directory"] == "kept"


def test_of_two_keys_the_bundle_says_which(tmp_path: Path) -> None:
    keys, options = [signing_key().public, signing_key().public], []
    for number, key in enumerate(keys):
        (tmp_path / f"{number}.pub").write_text(public_pem(key), encoding="ascii")
        options += ["--signer", str(tmp_path / f"{number}.pub")]
    found = json.loads(CliRunner().invoke(opa_config, ["--url", "https://control:8445", *options, *NAMES]).stdout)
    assert set(found["keys"]) == {key_id(key) for key in keys}
    assert found["bundles"]["sealbus"]["signing"] == {"scope": "sealbus"}


def test_what_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("junk", encoding="ascii")
    result = CliRunner().invoke(opa_config, ["--url", "x", "--signer", str(tmp_path / "key.pub"), *NAMES])
    assert isinstance(result.exception, ConfigurationError)
