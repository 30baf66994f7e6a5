"""The rows of people as commands see them: found by the person or by the pseudonym, and deleted once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lab import running
from support.settings import SMALLEST

from sealbus.agents.cli.options import Invocation
from sealbus.agents.cli.people import open_rows
from sealbus.agents.edge.oauth.tokens.pseudonyms import PSEUDONYM_PREFIX, PseudonymKey, delete_row
from sealbus.agents.runtime import open as runtime_open
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import SealbusError

pytestmark = pytest.mark.nats

IDP = "https://idp.example"


async def test_a_row_is_found_and_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sealbus.toml").write_text(SMALLEST)
    settings = load_settings(tmp_path / "sealbus.toml", environment={})
    invocation = Invocation(config=None, as_name="operator", as_json=False)
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
        await apply(declared_streams({"TASKS": 1 << 20, "AUDIT": 1 << 20, "PEOPLE": 1 << 20}), connection.jetstream)

        @asynccontextmanager
        async def opened(name: str, given: Settings) -> AsyncIterator[tuple[None, Connection]]:
            assert (name, given) == ("operator", settings)
            yield None, connection

        monkeypatch.setattr(runtime_open, "open_connection", opened)
        async with open_rows(invocation, settings, PseudonymKey(bytes(32))) as (rows, used):
            assert used is connection
            alice, bob = await rows.of(IDP, "alice"), await rows.of(IDP, "bob")
            row = await rows.find(IDP, "alice")
            assert row is not None
            assert await rows.find_pseudonym(alice) == row
            assert await rows.find_pseudonym(PSEUDONYM_PREFIX + "00" * 32) is None
            await delete_row(row, connection.jetstream)
            assert (await rows.find(IDP, "alice"), await rows.find_pseudonym(alice)) == (None, None)
            assert (await rows.find_pseudonym(bob)) is not None
            with pytest.raises(SealbusError):
                await delete_row(row, connection.jetstream)
