"""From settings to a responder: each thing that is missing is one line that names it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.callout import CONTROL, SERVER_ID, callout_site
from support.engines import ScriptedEngine
from support.identity import StaticIdentity
from support.lab import until
from support.settings import load
from support.x509 import ThrowawayCa

from sealbus.agents.control.callout.key_files import write_keys
from sealbus.agents.control.callout.nkeys import Prefix, SigningKey
from sealbus.agents.control.callout.responder import RefusedConnection
from sealbus.agents.control.callout.role import into_refusals, open_callout
from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError
from sealbus.policies.engines.embedded import EmbeddedEngine


def settings(folder: Path, keys: Path, *, more: str = "", nats: str = "tls://127.0.0.1:1") -> Settings:
    return load(
        folder,
        f"""
trust_domain = "example.org"
nats = ["{nats}"]
nats_ids = ["{SERVER_ID}"]
[policy]
engine = "embedded"
[control.callout]
issuer = "{keys / "issuer.seed"}"
xkey = "{keys / "xkey.seed"}"
nkey = "{keys / "user.seed"}"
{more}
""",
    )


async def opened(found: Settings) -> None:
    identity = StaticIdentity(ThrowawayCa("example.org"), str(CONTROL))
    async with open_callout(found, identity=identity, engine=ScriptedEngine()):
        pass


async def test_keys_must_be_said(tmp_path: Path) -> None:
    found = load(
        tmp_path, 'trust_domain = "example.org"\nnats = ["tls://127.0.0.1:1"]\n[policy]\nengine = "embedded"\n'
    )
    with pytest.raises(ConfigurationError, match=r"control\.callout\.issuer is not set"):
        await opened(found)


async def test_keys_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"issuer\.seed: No such file"):
        await opened(settings(tmp_path, tmp_path / "keys"))


async def test_servers_are_nkeys_of_servers(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys")
    user = SigningKey.generate(Prefix.USER).public
    with pytest.raises(ConfigurationError, match=r"control\.callout\.servers"):
        await opened(settings(tmp_path, tmp_path / "keys", more=f'servers = ["{user}"]'))


async def test_the_keys_before_must_be_there_if_they_are_said(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys")
    write_keys(tmp_path / "old")
    with pytest.raises(ConfigurationError, match=r"gone/issuer\.seed: No such file"):
        await opened(settings(tmp_path, tmp_path / "keys", more='previous = "gone"'))
    with pytest.raises(BusUnavailable):
        await opened(settings(tmp_path, tmp_path / "keys", more='previous = "old"'))


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys")
    with pytest.raises(BusUnavailable, match="connection refused"):
        await opened(settings(tmp_path, tmp_path / "keys"))


@pytest.mark.nats
async def test_settings_are_all_that_a_responder_needs(tmp_path: Path) -> None:
    async with callout_site(tmp_path / "site", responders=0) as site, EmbeddedEngine.of_folder() as engine:
        found = settings(
            tmp_path, site.folder / "keys", nats=site.url, more='accounts = ["APP", "APP_AGENTS"]\nlongest = 600'
        )
        refused: list[RefusedConnection] = []
        async with open_callout(
            found, identity=site.identity(CONTROL), engine=engine, on_refused=refused.append
        ) as callout:
            running = asyncio.create_task(callout.run())
            await until(lambda: not callout.problem)
            async with site.raw("inventory") as client:
                assert await client.may_publish("audit.inventory")
            with pytest.raises((OSError, asyncio.IncompleteReadError, AssertionError)):
                await site.raw("stranger").__aenter__()
            running.cancel()
            await asyncio.wait({running})
            assert callout.problem
        assert [(str(one.code), one.reasons) for one in refused] == [("denied", ("unknown_workload",))]


async def test_refused_connections_are_counted_with_what_was_verified() -> None:
    broker = MemoryBroker()
    refusals = Refusals(transport=broker.connect(), subject="refused.control", counters=Counters())
    note = into_refusals(refusals)
    for _ in range(3):
        note(
            RefusedConnection(
                code=Code.DENIED, detail="x", subject="spiffe://example.org/agent/s", reasons=("no",), server="N1"
            )
        )
    (count,) = refusals._counts.values()
    assert (count.count, count.step) == (3, 0)
    assert json.loads(count.sample) == {
        "code": "denied",
        "spiffe_id": "spiffe://example.org/agent/s",
        "reasons": ["no"],
        "server": "N1",
    }
