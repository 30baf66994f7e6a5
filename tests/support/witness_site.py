"""A witness of the settings on a free port, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from support.settings import SMALLEST, load

from sealbus.agents.control.witness.keys import make_witness_key
from sealbus.agents.control.witness.server import WitnessServer, open_witness
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.log.cosignature import CosignatureSigner, CosignatureType

__all__ = ["WitnessSite", "settings_text", "witness_keys"]

NAME = "witness.example.org/w1"


def witness_keys(folder: Path) -> tuple[CosignatureSigner, ...]:
    """Make a key of each type in `folder`, unless they are there."""
    return tuple(
        CosignatureSigner.parse(path.read_text().strip())
        if (path := folder / f"{kind.name}.key").exists()
        else make_witness_key(path, NAME, kind)
        for kind in CosignatureType
    )


def settings_text(logs: dict[str, str], *, port: int = 0, rate: int = 10_000) -> str:
    """Return the text of the settings of a witness of `logs`, their verifier keys by origin."""
    tables = "".join(
        f'[[control.witness.logs]]\norigin = "{origin}"\nkeys = ["{key}"]\n' for origin, key in logs.items()
    )
    return (
        f'{SMALLEST}\n[control.witness]\naddress = "127.0.0.1:{port}"\nfolder = "witness"\nrate = {rate}\n'
        f'signing_keys = ["ED25519.key", "ML_DSA_44.key"]\n{tables}'
    )


class WitnessSite:
    """A running witness."""

    def __init__(self, server: WitnessServer, client: httpx2.AsyncClient, counters: Counters) -> None:
        self.server = server
        self.client = client
        self.counters = counters

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, logs: dict[str, str], *, rate: int = 10_000) -> AsyncIterator[WitnessSite]:
        """Run a witness of `logs` whose keys and state are in `folder`."""
        witness_keys(folder)
        counters = Counters()
        settings = load(folder, settings_text(logs, rate=rate))
        async with (
            open_witness(settings, counters=counters) as server,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client,
        ):
            yield cls(server, client, counters)

    async def add(self, request: bytes) -> httpx2.Response:
        """Submit a checkpoint."""
        return await self.client.post("/add-checkpoint", content=request)
