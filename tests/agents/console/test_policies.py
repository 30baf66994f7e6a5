"""Policies found again: the one file of the settings, what is refused of it, and a log that is not here."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from support.settings import changed, smallest_environment

from sealbus.agents.console.policies import DecidingPolicies
from sealbus.agents.console.views import Views
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import build_bundle, write_bundle

NO_CONNECTION = cast("Connection", None)


class Reader:
    """Whoever looks, as far as views need it before they read anything."""

    def __init__(self, settings: Settings) -> None:
        self.own = settings.names.id_of("console")


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
        assert (part.part, part.revision, part.problem) == ("file", "one", "")


async def test_a_file_that_is_refused_is_no_policy_and_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "bundle.tar.gz").write_bytes(b"no bundle")
    async with DecidingPolicies(settings, NO_CONNECTION) as policies:
        assert await policies.in_force() is None
        assert await policies.of_revision("one") == ()
        [part] = await policies.parts()
        assert "is refused" in part.problem


async def test_a_log_that_is_not_here_is_not_verified(settings: Settings) -> None:
    async with DecidingPolicies(settings, NO_CONNECTION) as policies:
        views = Views(settings, cast("Node", Reader(settings)), NO_CONNECTION, policies)
        assert not views.has_log
        assert await views.log() == {"log": None}
        with pytest.raises(ConfigurationError, match="the log is not here"):
            await views.verify()
        with pytest.raises(ConfigurationError, match="the log is not here"):
            await views.receipt(b"r" * 32)
