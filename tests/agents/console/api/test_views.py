"""Documents about work: a log that is not here, and the entries of a log found by their places in the stream.

`tests/agents/console/test_console.py` reads the other documents, from a whole development environment.
"""

from __future__ import annotations

from typing import cast

import pytest
from support.payments import Payments
from support.settings import smallest_environment

from sealbus.agents.console.api.views import Views, entry_of, last_place
from sealbus.agents.console.decisions.deciding_policies import DecidingPolicies
from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.cells import Cells, CellTransport
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.places import Place, encode_places
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName
from sealbus.policies.decision.placement import Placement
from sealbus.testing import TestBus

NO_CONNECTION = cast("Connection", None)


class Reader:
    """Stands for the node that views read through: they know its SPIFFE ID before they read anything."""

    def __init__(self, settings: Settings) -> None:
        self.own = settings.names.id_of("console")


async def test_a_log_that_is_not_here_is_not_verified() -> None:
    settings = load_settings(None, environment=smallest_environment())
    async with DecidingPolicies(settings, NO_CONNECTION) as policies:
        views = Views(settings, cast("Node", Reader(settings)), NO_CONNECTION, policies)
        assert not views.has_log
        assert await views.log() == {"log": None}
        assert await views.logged(1) is None
        with pytest.raises(ConfigurationError, match="the log is not here"):
            await views.verify()
        with pytest.raises(ConfigurationError, match="the log is not here"):
            await views.receipt(b"r" * 32)


def place_files(sequences: list[int]) -> dict[str, bytes]:
    """Return the tiles with the places of a log whose entries are the messages `sequences`."""
    files: dict[str, bytes] = {}
    for tile in range(-(-len(sequences) // TILE_WIDTH)):
        part = sequences[tile * TILE_WIDTH : (tile + 1) * TILE_WIDTH]
        places = [Place(EntryKind.VERIFIED, sequence, sequence) for sequence in part]
        files[TileName("places", tile, len(part)).path] = encode_places(places)
    return files


def test_an_entry_is_found_by_its_place_in_a_log_of_many_tiles() -> None:
    size = 2 * TILE_WIDTH + 7
    # Not every message has an entry of its own number: the log began later, and some are missing.
    sequences = [10 + 3 * number for number in range(size)]
    files = place_files(sequences)
    for number in (0, 1, TILE_WIDTH - 1, TILE_WIDTH, 2 * TILE_WIDTH, size - 1):
        assert entry_of(files.get, size, sequences[number]) == number
    for sequence in (0, 9, 11, sequences[-1] + 1):
        assert entry_of(files.get, size, sequence) is None
    assert entry_of(files.get, 0, 10) is None
    del files[TileName("places", 1).path]
    assert entry_of(files.get, size, sequences[0]) is None


@pytest.mark.parametrize("size", [1, TILE_WIDTH - 1, TILE_WIDTH, TILE_WIDTH + 1])
def test_the_last_place_of_a_log_is_in_its_last_tile(size: int) -> None:
    sequences = [10 + 3 * number for number in range(2 * TILE_WIDTH)]
    # The log has grown since: its full tiles hold more places than the checkpoint covers.
    last = last_place(place_files(sequences).get, size)
    assert last is not None
    assert last.sequence == sequences[size - 1]
    assert last_place(place_files([]).get, size) is None


async def test_the_schedules_are_those_of_the_consoles_own_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(None, environment=smallest_environment())
    payments = Payments()
    async with (
        TestBus(payments.agent, engine=payments.engine) as bus,
        DecidingPolicies(settings, NO_CONNECTION) as policies,
    ):
        node = (await bus.client("console")).node
        # The console may not read the other cell: here its streams are not even there.
        other = MemoryBroker(lambda: 0).connect()
        cells = Cells(of={"payments": Placement("east")})
        monkeypatch.setattr(
            node, "transport", CellTransport(node.transport, lambda: cells, reach=lambda _: other, owners={})
        )
        monkeypatch.setattr(node, "held", node.held_at(node.transport))
        views = Views(settings, node, NO_CONNECTION, policies)
        assert await views.schedules() == {"schedules": []}
