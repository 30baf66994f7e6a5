"""`sealbus deny add|ls|rm`: by a push of the platform's part."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.policy_desk import Desk
from support.settings import SMALLEST

from sealbus.agents.cli.policy import status
from sealbus.agents.cli.policy.deny import command
from sealbus.agents.cli.policy.push import Act
from sealbus.envelopes.errors import ConfigurationError

pytestmark = pytest.mark.nats

PRICING = "spiffe://example.org/agent/pricing"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    found = Desk(tmp_path, monkeypatch)
    found.push_both()
    return found


def listed(desk: Desk) -> list[tuple[str, str, str, str]]:
    return [(row["kind"], row["id"], row["issued_before"], row["reason"]) for row in desk.json(command, "ls")]


def test_adding_listing_and_removing(desk: Desk) -> None:
    config = desk.folder / "sealbus.toml"
    config.write_text(SMALLEST, encoding="ascii")
    [pushed] = desk.json(command, "add", "user", "eve", "--reason", "left", "--key", desk.root)
    assert pushed["composed"].endswith(".platform-2.stock-1")
    desk.json(command, "add", "session", "s-1", "--key", desk.root)
    desk.json(command, "add", "workload", "pricing", "--key", desk.root, "--config", config)
    desk.json(command, "add", "workload", PRICING, "--issued-before", "2026-11-24T10:00:00Z", "--key", desk.root)
    assert listed(desk) == [
        ("workload", PRICING, "", ""),
        ("user", "eve", "", "left"),
        ("session", "s-1", "", ""),
        ("workload", PRICING, "2026-11-24T10:00:00.000Z", ""),
    ]
    assert "eve" in desk.run(command, "ls").stdout
    desk.json(command, "rm", "workload", PRICING, "--key", desk.root)
    desk.json(command, "rm", "user", "eve", "--key", desk.root)
    assert listed(desk) == [("session", "s-1", "", "")]
    again = desk.run(command, "rm", "user", "eve", "--key", desk.root)
    assert isinstance(again.exception, ConfigurationError)
    assert "user eve is not denied" in again.exception.detail
    assert desk.acts[2:-1] == [
        Act("deny", "user eve", "left"),
        Act("deny", "session s-1"),
        Act("deny", f"workload {PRICING}"),
        Act("deny", f"workload {PRICING}"),
        Act("allow", f"workload {PRICING}"),
        Act("allow", "user eve"),
    ]


def test_what_cannot_be_meant(desk: Desk) -> None:
    keys = desk.run(command, "add", "user", "eve", "--issued-before", "1h", "--key", desk.root)
    assert keys.exit_code == 2
    bad = desk.run(command, "add", "workload", "spiffe://", "--key", desk.root)
    assert isinstance(bad.exception, ConfigurationError)
    assert "not a SPIFFE ID" in bad.exception.detail


def test_denials_by_themselves(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALBUS_POLICY__DENIALS", "entry")
    [pushed] = desk.json(command, "add", "user", "eve", "--reason", "left", "--key", desk.root)
    assert pushed == {"name": "platform", "serial": 2, "composed": "", "fallen": {}}
    desk.json(command, "add", "workload", PRICING, "--issued-before", "2026-11-24T10:00:00Z", "--key", desk.root)
    assert "platform is pushed under serial 4\n" in desk.run(command, "add", "session", "s", "--key", desk.root).stderr
    expected = [
        ("user", "eve", "", "left"),
        ("session", "s", "", ""),
        ("workload", PRICING, "2026-11-24T10:00:00.000Z", ""),
    ]
    assert listed(desk) == expected
    [platform, team] = desk.json(status.status)
    assert (platform["part"], platform["serial"], platform["kept"]) == ("platform", 4, [1])
    assert team["serial"] == 1
    desk.json(command, "rm", "session", "s", "--key", desk.root)
    assert listed(desk) == [expected[0], expected[2]]
    other = desk.run(command, "add", "user", "dave", "--key", desk.stock)
    assert isinstance(other.exception, ConfigurationError)
    assert "policy.keys" in other.exception.detail
