"""A responder is connected to one server of a cluster, and answers for all of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from support.callout import CalloutSite, callout_site, waiting
from support.lab import until
from support.ports import held_port

from sealbus.agents.control.callout.key_files import CalloutKeys, write_keys
from sealbus.envelopes.errors import Code

pytestmark = [pytest.mark.nats]


def in_cluster(folder: Path, name: str, port: int, other: int) -> Path:
    """Write the configuration with a route to another server on loopback, and without streams, which need three."""
    text = waiting(2).replace("jetstream { store_dir: $NATS_STORE }", "").replace("jetstream: enabled,", "")
    routes = f'["nats-route://127.0.0.1:{other}"]'
    path = folder / f"{name}.conf"
    path.write_text(f'{text}\ncluster {{ name: c, listen: "127.0.0.1:{port}", routes: {routes} }}\n')
    return path


async def test_the_other_server_asks_over_its_route(tmp_path: Path) -> None:
    one, two = held_port(), held_port()
    async with callout_site(tmp_path / "first", conf=in_cluster(tmp_path, "first", one, two)) as first:
        second = await first.second_server(in_cluster(tmp_path, "second", two, one))
        await until(lambda: "Route connection created" in second.log)
        await lets_in(second)
        (responder,) = first.responders
        assert 'sealbus_callout_total{outcome="allowed"}' in responder.counters.render()


async def lets_in(site: CalloutSite) -> None:
    """Connect as the inventory, again and again: a route is there a moment before it knows of the responder."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with site.raw("inventory") as client:
                    assert await client.may_publish("audit.inventory")
                    assert not await client.may_publish("audit.pricing")
                    return
            except ConnectionError:
                continue


def with_keys(conf: Path, keys: CalloutKeys, *responders: CalloutKeys) -> None:
    """Write into a configuration whom the server asks, by the keys themselves: a variable has one value while it runs."""
    text = conf.with_suffix(".template").read_text()
    user = text[text.index("      {\n        nkey: $CALLOUT_USER") : text.index("    ]\n  }\n  # Two accounts")]
    names = [one.user.public for one in responders]
    text = text.replace(user, "".join(user.replace("$CALLOUT_USER", name) for name in names))
    text = text.replace("[ $CALLOUT_USER ]", f"[ {', '.join(names)} ]")
    for name, value in keys.public().items():
        text = text.replace(f"${name}", value)
    conf.write_text(text)


async def test_all_keys_are_replaced_one_server_after_the_other(tmp_path: Path) -> None:
    """The steps of docs/runbooks.md. A server takes other keys at a start alone: in between, each has keys of its own."""
    one, two = held_port(), held_port()
    confs = [in_cluster(tmp_path, "first", one, two), in_cluster(tmp_path, "second", two, one)]
    for conf in confs:
        conf.with_suffix(".template").write_text(conf.read_text())
    async with callout_site(tmp_path / "first", conf=confs[0]) as first:
        second = await first.second_server(confs[1])
        old, new = first.keys, write_keys(tmp_path / "new")
        # 1. Responders have the new keys, answer under the old ones as well, and log in as before.
        first.keys = replace(new, user=old.user)
        between = await first.respond(previous=old)
        await first.responders[0].stop()
        # 2. One server after the other.
        with_keys(confs[1], new, old, new)
        await second.stop()
        await second.start()
        for site in (first, second):
            await lets_in(site)
        with_keys(confs[0], new, old, new)
        await first.stop()
        await first.start()
        # 3. Responders have the new keys alone.
        first.keys = new
        after = await first.respond()
        await between.stop()
        for site in (first, second):
            await lets_in(site)
        assert between.refused == after.refused == []
        # A responder that has not been told of the former keys answers nobody who asks under them.
        with_keys(confs[1], old, old, new)
        await second.stop()
        await second.start()
        async with asyncio.timeout(60):
            # Before its route is there again, no responder is asked.
            while not after.codes:
                with pytest.raises(ConnectionError):
                    async with second.raw("inventory"):
                        pass
        assert set(after.codes) == {Code.BAD_AUTH_REQUEST}
