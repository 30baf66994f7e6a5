"""A responder is connected to one server of a cluster, and answers for all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.callout import CONF, callout_site
from support.lab import until
from support.ports import free_port

pytestmark = [pytest.mark.nats, pytest.mark.timeout(60)]


def in_cluster(folder: Path, name: str, port: int, other: int) -> Path:
    """Write the configuration with a route to another server on loopback, and without streams, which need three."""
    text = CONF.read_text().replace("jetstream { store_dir: $NATS_STORE }", "").replace("jetstream: enabled,", "")
    routes = f'["nats-route://127.0.0.1:{other}"]'
    path = folder / f"{name}.conf"
    path.write_text(f'{text}\ncluster {{ name: c, listen: "127.0.0.1:{port}", routes: {routes} }}\n')
    return path


async def test_the_other_server_asks_over_its_route(tmp_path: Path) -> None:
    one, two = free_port(), free_port()
    async with callout_site(tmp_path / "first", conf=in_cluster(tmp_path, "first", one, two)) as first:
        second = await first.second_server(in_cluster(tmp_path, "second", two, one))
        await until(lambda: "Route connection created" in second.log)
        async with asyncio.timeout(30):
            # The route is there a moment before it knows of the responder.
            while True:
                try:
                    async with second.raw("inventory") as client:
                        assert await client.may_publish("audit.inventory")
                        assert not await client.may_publish("audit.pricing")
                        break
                except ConnectionError:
                    continue
        (responder,) = first.responders
        assert 'sealbus_callout_total{outcome="allowed"}' in responder.counters.render()
