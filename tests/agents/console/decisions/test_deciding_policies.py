"""Policies found again: the one file of the settings, and what is refused of it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from support.settings import changed, smallest_environment

from sealbus.agents.console.decisions.deciding_policies import DecidingPolicies
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.nats.connection.connection import Connection
from sealbus.policies.bundle.files import build_bundle, write_bundle

NO_CONNECTION = cast("Connection", None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    bundle = build_bundle(Path("policies/rego"), revision="one")
    write_bundle(bundle, tmp_path / "bundle.tar.gz")
    found = load_settings(None, environment=smallest_environment())
    return changed(found, policy=changed(found.policy, bundle=str(tmp_path / "bundle.tar.gz")))


async def test_the_file_of_the_settings_is_the_policy_of_its_own_revision(settings: Settings) -> None:
    async with DecidingPolicies(settings, NO_CONNECTION) as policies:
        current = await policies.in_force()
        assert current is not None
        assert [one.revision for one in await policies.of_revision("one")] == ["one"]
        assert await policies.of_revision("two") == ()
        assert await policies.of_revision("") == ()
        [part] = await policies.parts()
        assert (part["part"], part["revision"], part["problem"]) == ("file", "one", "")


async def test_a_file_that_is_refused_is_no_policy_and_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "bundle.tar.gz").write_bytes(b"no bundle")
    async with DecidingPolicies(settings, NO_CONNECTION) as policies:
        assert await policies.in_force() is None
        assert await policies.of_revision("one") == ()
        [part] = await policies.parts()
        assert "is refused" in part["problem"]
