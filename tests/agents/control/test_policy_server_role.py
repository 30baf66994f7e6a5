"""The policy server's role: identity, connection and bucket, each closed again where the next is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from sealbus.agents.control import policy_server as role
from sealbus.agents.control.policy_server import open_policy_role
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError

SETTINGS = cast("Settings", object())


async def test_it_is_opened_as_control_on_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def open_connection(name: str, settings: Settings, *, counters: Counters) -> AsyncIterator[tuple[str, str]]:
        assert settings is SETTINGS
        opened.append(name)
        yield "identity", "connection"
        opened.append(f"{name} closed")

    @asynccontextmanager
    async def open_policy_server(*given: object, counters: Counters) -> AsyncIterator[str]:
        assert given == (SETTINGS, "identity", "connection")
        yield "server"

    monkeypatch.setattr(role, "open_connection", open_connection)
    monkeypatch.setattr(role, "open_policy_server", open_policy_server)
    async with open_policy_role(SETTINGS, counters=Counters()) as server:
        assert cast("str", server) == "server"
        assert opened == ["control"]
    assert opened == ["control", "control closed"]


async def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def open_connection(*_: object, **__: object) -> AsyncIterator[tuple[str, str]]:
        yield "identity", "connection"

    @asynccontextmanager
    async def open_policy_server(*_: object, **__: object) -> AsyncIterator[str]:
        raise ConfigurationError("policy.serve is not set")
        yield ""

    monkeypatch.setattr(role, "open_connection", open_connection)
    monkeypatch.setattr(role, "open_policy_server", open_policy_server)
    with pytest.raises(ConfigurationError, match=r"policy\.serve is not set"):
        async with open_policy_role(SETTINGS, counters=Counters()):
            raise AssertionError("not reached")
