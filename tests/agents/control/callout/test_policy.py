"""By what the callout decides before anybody can read the bucket, and that it follows the bucket afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from support.settings import changed

from sealbus.agents.control.callout import policy as module
from sealbus.agents.control.callout.policy import CACHE, first_bundle, follow_bucket
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle
from sealbus.policies.bundle.in_force import InForce

CONNECTION = cast("Connection", object())


@pytest.fixture
def settings(tmp_path: Path) -> PolicyTable:
    return PolicyTable(
        engine="embedded",
        opa=(),
        deadline=1.0,
        bundle="nats://policies",
        cache=tmp_path / "cache",
        keys=(tmp_path / "platform.pub",),
    )


@pytest.fixture
def bootstrap(tmp_path: Path) -> Path:
    write_bundle(build_bundle(STARTER), tmp_path / "bootstrap.tar.gz")
    return tmp_path / "bootstrap.tar.gz"


def test_the_first_time_it_is_what_the_operator_gave(settings: PolicyTable, bootstrap: Path) -> None:
    first = first_bundle(settings, bootstrap)
    assert first is not None
    assert first.raw == bootstrap.read_bytes()
    write_bundle(build_bundle(STARTER, revision="newer"), bootstrap)
    again = first_bundle(settings, bootstrap)
    assert again is not None
    assert again.revision == "newer"


def test_later_it_is_what_the_bucket_had(settings: PolicyTable, bootstrap: Path, tmp_path: Path) -> None:
    composed = tmp_path / "cache" / CACHE / "composed" / "bundle.tar.gz"
    composed.parent.mkdir(parents=True)
    write_bundle(build_bundle(STARTER, revision="pushed"), composed)
    for beside in (bootstrap, None):
        first = first_bundle(settings, beside)
        assert first is not None
        assert first.revision == "pushed"


def test_without_either_there_is_no_callout(settings: PolicyTable, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"control\.callout\.bootstrap is not set"):
        first_bundle(settings, None)
    with pytest.raises(ConfigurationError, match=r"policy\.cache is not set"):
        first_bundle(changed(settings, cache=None), None)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ConfigurationError, match="not a gzipped tar"):
        first_bundle(settings, tmp_path / "junk")


@pytest.mark.parametrize("change", [{"bundle": None}, {"engine": "central"}])
def test_what_has_no_bucket_or_no_bundle_needs_none(settings: PolicyTable, change: dict[str, str | None]) -> None:
    assert first_bundle(changed(settings, **change), None) is None


async def test_a_bucket_without_a_policy_is_looked_into_again(
    settings: PolicyTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, following = [0], asyncio.Event()

    @asynccontextmanager
    async def open_sync(name: str, *_: object, **__: object) -> AsyncIterator[None]:
        assert name == "callout"
        asked[0] += 1
        if asked[0] < 4:
            raise ConfigurationError("nothing was pushed yet")
        following.set()
        yield

    monkeypatch.setattr(module, "open_sync", open_sync)
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)
    running = asyncio.create_task(follow_bucket(settings, CONNECTION, Counters(), InForce()))
    await following.wait()
    assert caplog.text.count("nothing was pushed yet") == 1
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
