"""What OPA's compiler refuses and ours does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.opa import require_opa
from support.policies import SCRIPTED, bundle

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.opa.compiler import find_opa, opa_check

UNTITLED = SCRIPTED + "\n# METADATA\n# title: [x\nodd := 1\n"
"""OPA reads such comments as YAML."""


def program(folder: Path, text: str) -> Path:
    file = folder / "opa"
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    file.chmod(0o755)
    return file


@pytest.mark.opa
def test_comments_are_opas_to_check() -> None:
    opa = require_opa()
    opa_check(bundle(), opa)
    untitled = bundle(policy=UNTITLED)
    check_bundle(untitled)
    with pytest.raises(PolicyRefused, match=r"authz\.rego:12:.*yaml: .*\[opa\]"):
        opa_check(untitled, opa)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("echo '{\"errors\": [{}]}'; exit 1", r"the bundle: refused \[opa\]"),
        ("echo '{\"errors\": []}'; exit 1", r"the bundle: refused \[opa\]"),
        ('echo \'{"errors": [{"message": "m", "location": {"file": "a", "row": 1, "col": 2}}]}\'; exit 1', "a:1:2: m"),
    ],
)
def test_errors_with_and_without_a_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PolicyRefused, match=says):
        opa_check(bundle(), program(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("echo no such flag >&2; exit 2", "check failed: no such flag"),
        ("echo '[]'; exit 1", "check failed"),
        ("echo '{\"errors\": [1]}'; exit 1", "check failed"),
        ("exec sleep 60", "did not end within 0.2 s"),
    ],
)
def test_programs_that_are_no_opa(tmp_path: Path, text: str, says: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigurationError, match=says) as refused:
        opa_check(bundle(), program(tmp_path, text), deadline=0.2 if "sleep" in text else 30)
    assert not isinstance(refused.value, PolicyRefused)
    assert time.monotonic() - started < 30


def test_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be run"):
        opa_check(bundle(), tmp_path / "none")


def test_where_opa_is(tmp_path: Path) -> None:
    opa = program(tmp_path, "exit 0")
    path = {"PATH": str(tmp_path)}
    assert find_opa(Path("said"), path) == Path("said")
    assert find_opa(None, {**path, "SEALBUS_OPA": "named"}) == Path("named")
    assert find_opa(None, path) == opa
    assert find_opa(None, {"PATH": str(tmp_path / "none")}) is None
    assert find_opa(opa) == opa
