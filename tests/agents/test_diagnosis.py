"""`sealbus doctor`'s checks: each part on its own, one line each, and none hides another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.settings import FULL, load

from sealbus.agents import diagnosis
from sealbus.agents.diagnosis import Check, examine
from sealbus.agents.settings import PolicySettings, Settings
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.policies.bundle import STARTER, build_bundle, write_bundle


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose policy is there, and nothing else."""
    write_bundle(build_bundle(STARTER), tmp_path / "bundle.tar.gz")
    return replace(
        load(tmp_path, FULL),
        policy=PolicySettings(engine="embedded", bundle=tmp_path / "bundle.tar.gz", opa=None, deadline=1.0),
        workload_api=f"unix://{tmp_path / 'agent.sock'}",
    )


async def test_each_part_is_looked_at_whatever_the_others_are(settings: Settings) -> None:
    checks = await examine(settings, "pricing")
    assert [(one.part, one.ok) for one in checks] == [("identity", False), ("nats", False), ("policy", True)]
    assert "embedded, revision " in checks[2].text
    for one in checks:
        assert one.text
        assert "\n" not in one.text


async def test_a_policy_that_is_not_there_says_which_file(settings: Settings) -> None:
    missing = replace(settings.policy, bundle=Path("/nowhere/bundle.tar.gz"))
    *_, found = await examine(replace(settings, policy=missing), "pricing")
    assert (found.part, found.ok) == ("policy", False)
    assert "/nowhere/bundle.tar.gz" in found.text


async def test_a_running_opa_is_asked_only_where_it_is_named(settings: Settings) -> None:
    *_, found = await examine(settings, "pricing", opa="http://127.0.0.1:1")
    assert (found.part, found.ok) == ("opa", False)


async def test_a_failure_without_words_is_told_by_its_code(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> str:
        raise BusUnavailable

    monkeypatch.setattr(diagnosis, "_nats", silent)
    _, found, _ = await examine(settings, "pricing")
    assert found == Check(part="nats", ok=False, text=str(Code.BUS_UNAVAILABLE))
