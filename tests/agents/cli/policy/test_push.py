"""`sealbus policy push|rollback` on a real server: what is refused is refused here, with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.opa import require_opa
from support.policy_desk import Desk, key_file
from support.settings import SMALLEST
from support.teams import ONLY_OPA_REFUSES, team_policy

from sealbus.agents.cli.policy import push as module
from sealbus.agents.cli.policy.build import build, sign
from sealbus.agents.cli.policy.push import push, rollback
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import key_id, public_pem
from sealbus.policies.lint.module import PolicyRefused

OPEN = module.open_store

pytestmark = pytest.mark.nats


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_pushes_get_serials_and_come_to_one_policy(desk: Desk) -> None:
    [first] = desk.json(push, desk.platform, "--key", desk.root)
    assert (first["name"], first["serial"], first["fallen"]) == ("platform", 1, {})
    [team] = desk.json(push, desk.team, "--name", "stock", "--key", desk.stock)
    assert team["composed"].endswith(".platform-1.stock-1")
    result = desk.run(push, desk.team, "--name", "stock", "--key", desk.stock)
    assert "stock is pushed under serial 2" in result.stderr


def test_who_may_only_revoke_pushes_that_and_nothing_else(desk: Desk) -> None:
    file, revoker = key_file(desk.folder / "revoker.pem")
    named = desk.platform / "sealbus" / "platform" / "revokers" / "data.json"
    named.parent.mkdir()
    named.write_text(json.dumps({key_id(revoker.public): public_pem(revoker.public)}))
    desk.push_both()
    folder = desk.folder / "revocations"
    (folder / "sealbus" / "revocations").mkdir(parents=True)
    (folder / ".manifest").write_text('{"roots": ["sealbus/revocations"]}')
    listed = folder / "sealbus" / "revocations" / "data.json"
    listed.write_text(json.dumps({"sessions": {"https://idp.example.org": {"session-7": 1_795_752_000_000_000}}}))
    [pushed] = desk.json(push, folder, "--name", "revocations", "--key", file)
    assert (pushed["serial"], pushed["fallen"]) == (1, {})
    assert pushed["composed"].endswith(".platform-1.stock-1")
    listed.write_text(json.dumps({"sessions": ["session-7"]}))
    result = desk.run(push, folder, "--name", "revocations", "--key", file)
    assert isinstance(result.exception, PolicyRefused)
    assert "sessions is not an object by issuer" in result.exception.detail
    for name, source in (("platform", desk.platform), ("stock", desk.team)):
        result = desk.run(push, source, "--name", name, "--key", file)
        assert isinstance(result.exception, PolicyRefused)
        assert "may not sign" in result.exception.detail


def test_a_rollback_is_an_older_content_under_a_newer_serial(desk: Desk) -> None:
    desk.push_both()
    desk.write_team(team_policy("stock", allow="1 == 2"))
    [second] = desk.json(push, desk.team, "--name", "stock", "--key", desk.stock)
    [third] = desk.json(rollback, "stock", "--to", "1", "--key", desk.stock)
    assert (second["serial"], third["serial"]) == (2, 3)
    assert third["composed"].endswith(".platform-1.stock-3")
    result = desk.run(rollback, "stock", "--to", "9", "--key", desk.stock)
    assert isinstance(result.exception, ConfigurationError)
    assert "there are 1, 2, 3" in result.exception.detail


def test_what_no_consumer_would_take_is_not_pushed(desk: Desk) -> None:
    desk.push_both()
    by_another = desk.run(push, desk.team, "--name", "stock", "--key", desk.root)
    assert isinstance(by_another.exception, PolicyRefused)
    assert "may not sign" in by_another.exception.detail
    desk.write_team(team_policy("money"))
    outside = desk.run(push, desk.team, "--name", "stock", "--key", desk.stock)
    assert isinstance(outside.exception, PolicyRefused)
    assert "policy.rego:1:1" in outside.exception.detail
    [again] = desk.json(rollback, "stock", "--to", "1", "--key", desk.stock)
    assert again["serial"] == 2


def test_a_bundle_that_was_signed_elsewhere_keeps_its_serial(desk: Desk) -> None:
    desk.push_both()
    file = desk.folder / "b.tar.gz"
    desk.json(build, desk.team, "--part", "--serial", "7", "-o", file)
    desk.json(sign, file, "--name", "stock", "--key", desk.stock)
    [pushed] = desk.json(push, file, "--name", "stock")
    assert pushed["serial"] == 7
    again = desk.run(push, file, "--name", "stock")
    assert again.exit_code == 0  # it is the one that is in force
    desk.json(build, desk.team, "--part", "--serial", "6", "-o", file)
    desk.json(sign, file, "--name", "stock", "--key", desk.stock)
    older = desk.run(push, file, "--name", "stock")
    assert isinstance(older.exception, PolicyRefused)
    assert "not after 7" in older.exception.detail
    assert desk.run(push, desk.team, "--name", "stock").exit_code == 2
    # Or it is signed again here, whatever serial it had.
    [signed] = desk.json(push, file, "--name", "stock", "--key", desk.stock)
    assert signed["serial"] == 8


def test_a_team_that_loses_its_place_is_told_of(desk: Desk) -> None:
    desk.push_both()
    (desk.platform / "sealbus" / "platform" / "owners" / "data.json").write_text("{}", encoding="ascii")
    result = desk.run(push, desk.platform, "--key", desk.root)
    assert "stock was left out" in result.stderr


@pytest.mark.opa
def test_what_only_opa_would_refuse_is_not_pushed_where_there_is_one(desk: Desk) -> None:
    desk.push_both()
    desk.write_team(team_policy("stock", extra=ONLY_OPA_REFUSES))
    refused = desk.run(push, desk.team, "--name", "stock", "--key", desk.stock, "--opa", require_opa())
    assert isinstance(refused.exception, PolicyRefused)
    assert "stock/policy.rego:9:" in refused.exception.detail
    assert refused.exception.problems[0].form == "opa"
    desk.write_team()
    pushed = desk.run(push, desk.team, "--name", "stock", "--key", desk.stock, "--opa", require_opa())
    assert "under serial 2" in pushed.stderr


def test_without_a_store_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sealbus.toml").write_text(SMALLEST, encoding="ascii")
    monkeypatch.setattr(module, "open_store", OPEN)
    result = CliRunner().invoke(
        rollback, ["stock", "--to", "1", "--key", __file__, "--config", str(tmp_path / "sealbus.toml")]
    )
    assert isinstance(result.exception, ConfigurationError)
    assert "there is no policy store" in result.exception.detail
