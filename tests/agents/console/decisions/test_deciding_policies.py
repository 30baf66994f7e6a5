"""Policies found again: the one file of the settings, what is refused of it, and a log that is not here."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from support.settings import changed, smallest_environment

from sealbus.agents.console.api.views import Views, entry_of
from sealbus.agents.console.decisions.deciding_policies import DecidingPolicies
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.places import Place, encode_places
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName
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
        assert (part["part"], part["revision"], part["problem"]) == ("file", "one", "")


async def test_a_file_that_is_refused_is_no_policy_and_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "bundle.tar.gz").write_bytes(b"no bundle")
    async with DecidingPolicies(settings, NO_CONNECTION) as policies:
        assert await policies.in_force() is None
        assert await policies.of_revision("one") == ()
        [part] = await policies.parts()
        assert "is refused" in part["problem"]


async def test_a_log_that_is_not_here_is_not_verified(settings: Settings) -> None:
    async with DecidingPolicies(settings, NO_CONNECTION) as policies:
        views = Views(settings, cast("Node", Reader(settings)), NO_CONNECTION, policies)
        assert not views.has_log
        assert await views.log() == {"log": None}
        assert await views.logged(1) is None
        with pytest.raises(ConfigurationError, match="the log is not here"):
            await views.verify()
        with pytest.raises(ConfigurationError, match="the log is not here"):
            await views.receipt(b"r" * 32)


def test_an_entry_is_found_by_its_place_in_a_log_of_many_tiles() -> None:
    size = 2 * TILE_WIDTH + 7
    # Not every message has an entry of its own number: the log began later, and some are missing.
    sequences = [10 + 3 * number for number in range(size)]
    files = {}
    for tile in range(3):
        part = sequences[tile * TILE_WIDTH : (tile + 1) * TILE_WIDTH]
        places = [Place(EntryKind.VERIFIED, sequence, sequence) for sequence in part]
        files[TileName("places", tile, len(part)).path] = encode_places(places)
    for number in (0, 1, TILE_WIDTH - 1, TILE_WIDTH, 2 * TILE_WIDTH, size - 1):
        assert entry_of(files.get, size, sequences[number]) == number
    for sequence in (0, 9, 11, sequences[-1] + 1):
        assert entry_of(files.get, size, sequence) is None
    assert entry_of(files.get, 0, 10) is None
    del files[TileName("places", 1).path]
    assert entry_of(files.get, size, sequences[0]) is None
