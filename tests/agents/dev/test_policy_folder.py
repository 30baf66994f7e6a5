"""A policy folder that changes is published again; one that cannot be leaves the old in force and is looked at on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from support.lab import until

from sealbus.agents.dev import environment as policy_folder
from sealbus.agents.dev.environment import Environment, republish
from sealbus.envelopes.errors import ConfigurationError


@dataclass
class FakeEnvironment:
    """Publishes what stands in the folder, unless that is nonsense."""

    policy: Path
    published: list[list[str]] = field(default_factory=list)
    refused: int = 0

    def publish_policy(self) -> str:
        texts = sorted(path.read_text() for path in self.policy.rglob("*.rego"))
        if "nonsense" in texts:
            self.refused += 1
            raise ConfigurationError("authz.rego:1: nonsense")
        self.published.append(texts)
        return str(len(self.published))


@pytest.fixture
async def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEnvironment]:
    monkeypatch.setattr(policy_folder, "LOOK_EVERY", 0.002)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "authz.rego").write_text("first")
    made = FakeEnvironment(tmp_path)
    running = asyncio.create_task(republish(cast("Environment", made)))
    await asyncio.sleep(0)
    yield made
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_a_change_is_published_once_and_no_change_is_not(environment: FakeEnvironment) -> None:
    (environment.policy / "deep" / "authz.rego").write_text("another")
    await until(lambda: environment.published == [["another"]])
    (environment.policy / "more.rego").write_text("more")
    await until(lambda: environment.published[1:] == [["another", "more"]])
    (environment.policy / "more.rego").unlink()
    await until(lambda: environment.published[2:] == [["another"]])
    (environment.policy / "last.rego").write_text("last")
    # Anything that was published again for no change would stand before this one.
    await until(lambda: environment.published[3:] == [["another", "last"]])


async def test_a_bad_one_leaves_the_old_in_force_until_it_is_mended(
    environment: FakeEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (environment.policy / "deep" / "authz.rego").write_text("nonsense")
        await until(lambda: environment.refused == 1)
        assert environment.published == []
        assert "the old policy stays in force: authz.rego:1: nonsense" in caplog.text
        (environment.policy / "deep" / "authz.rego").write_text("mended now")
        await until(lambda: environment.published == [["mended now"]])
    assert environment.refused == 1
