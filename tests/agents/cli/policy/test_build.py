"""`sealbus policy build|sign`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from support.policy_desk import key_file
from support.teams import PLATFORM_FOLDER

from sealbus.agents.cli.policy.build import build, sign
from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.files import STARTER, load_bundle
from sealbus.policies.bundle.signing import BundleVerifier
from sealbus.policies.lint.module import PolicyRefused


def run(command: object, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])  # type: ignore[arg-type]  # a click command


def test_a_folder_becomes_a_bundle_and_gets_its_signature(tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    result = run(build, STARTER, "-o", out, "--serial", "3", "--revision", "r3", "--json")
    assert json.loads(result.stdout) == {"file": str(out), "revision": "r3", "serial": 3}
    assert load_bundle(out).revision == "r3"
    # It takes the place of the denials before it, if it is the platform's.
    assert load_bundle(out).denials == 2
    file, key = key_file(tmp_path / "key.pem")
    result = run(sign, out, "--name", "platform", "--key", file)
    assert result.exit_code == 0
    assert key_id(key.public) in result.stderr
    verifier = BundleVerifier(keys={key_id(key.public): key.public}, scope="platform")
    assert load_bundle(out, verifier).serial == 3


def test_what_may_not_be_put_in_force_is_not_built(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text("package a\n\nx := time.now_ns()\n", encoding="ascii")
    result = run(build, tmp_path, "-o", tmp_path / "b.tar.gz")
    assert isinstance(result.exception, PolicyRefused)
    assert "a.rego:3:" in result.exception.detail
    assert not (tmp_path / "b.tar.gz").exists()


def test_a_part_needs_no_entry_points(tmp_path: Path) -> None:
    assert isinstance(run(build, PLATFORM_FOLDER, "-o", tmp_path / "b.tar.gz").exception, PolicyRefused)
    assert run(build, PLATFORM_FOLDER, "--part", "-o", tmp_path / "b.tar.gz").exit_code == 0
