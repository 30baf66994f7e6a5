"""OPA's configuration; that OPA takes it is tested with the policy server (tests/integration/test_policy_bundles.py)."""

from __future__ import annotations

import json
from pathlib import Path

from support.policies import signing_key

from sealbus.envelopes.trust.keys import key_id, public_pem
from sealbus.policies.opa.config import OpaFiles, opa_config

FILES = OpaFiles(certificate=Path("/svid.pem"), key=Path("/svid.key"), bundle=Path("/bundle.pem"))


def test_only_what_the_key_signed_for_the_scope_is_taken() -> None:
    key = signing_key().public
    found = json.loads(opa_config("https://control:8445", [key], FILES))
    assert found["keys"] == {key_id(key): {"algorithm": "ES256", "key": public_pem(key)}}
    assert found["bundles"]["sealbus"]["signing"] == {"keyid": key_id(key), "scope": "sealbus"}
    assert found["bundles"]["sealbus"]["resource"] == "/bundles/sealbus.tar.gz"
    assert found["services"]["sealbus"]["tls"] == {"ca_cert": "/bundle.pem"}
    assert "persistence_directory" not in found


def test_it_may_outlast_the_server() -> None:
    found = json.loads(opa_config("https://control:8445", [signing_key().public], FILES, persist=Path("/var/opa")))
    assert found["persistence_directory"] == "/var/opa"
    assert found["bundles"]["sealbus"]["persist"] is True
