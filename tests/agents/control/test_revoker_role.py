"""The role `revoker`: an agent that the edge alone may ask, and what its settings lack in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.lab import running
from support.policies import signing_key
from support.policy_bus import ANCHORS, ROOT
from support.policy_desk import key_file
from support.settings import SMALLEST, load
from support.teams import naming

from sealbus.agents.control.revoker import WORKER_LIMITS, Revoker, open_revoker, revoker_agent
from sealbus.agents.runtime.policy.push import push_signed
from sealbus.agents.runtime.policy.revocation import REVOKE, Revocation
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.bus.clocks import wall_clock
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError, Denied
from sealbus.policies.bundle.revocations import NONE_REVOKED
from sealbus.testing import TestBus

KEY = signing_key()
PUSHED = "sealbus_revocations_pushed_total"


def of_session(name: str) -> Revocation:
    return Revocation(kind="session", issuer="https://idp.example", id=name, at=wall_clock())


@asynccontextmanager
async def revoking(folder: Path, counters: Counters) -> AsyncIterator[Revoker]:
    """Run a revoker on a real store."""
    async with running(folder, "a") as lab, lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        await push_signed(store, ANCHORS, "platform", naming(ROOT, {}, KEY, serial=1))
        revoker = Revoker(store, ANCHORS, KEY, in_force=lambda: NONE_REVOKED, counters=counters)
        task = asyncio.create_task(revoker.run())
        try:
            yield revoker
        finally:
            task.cancel()
            await asyncio.wait({task})


@pytest.mark.nats
async def test_a_thousand_calls_at_once_are_each_recorded_and_answered_by_a_push_a_second(tmp_path: Path) -> None:
    counters = Counters()
    async with (
        revoking(tmp_path / "nats", counters) as revoker,
        TestBus(revoker_agent(revoker), engine=ScriptedEngine(), limits=WORKER_LIMITS) as bus,
    ):
        edge, loop = await bus.client("edge"), asyncio.get_running_loop()
        began = loop.time()
        calls = [edge.call(REVOKE, of_session(f"s-{number}"), returns=type(None)) for number in range(1_000)]
        await asyncio.gather(*calls)
        # One a second at most, however long the thousand took.
        assert 1 <= counters.value(PUSHED) <= loop.time() - began + 1
        decided = await bus.decisions(REVOKE)
        assert (len(decided), all(one.allow for one in decided)) == (1_000, True)


async def test_the_starter_policy_lets_the_edge_ask_and_nobody_else() -> None:
    asked: list[Revocation] = []

    class Remembering:
        async def revoke(self, one: Revocation) -> None:
            asked.append(one)

    agent = revoker_agent(Remembering())  # type: ignore[arg-type]  # all that the agent needs of it
    async with TestBus(agent) as bus:
        edge, web = await bus.client("edge"), await bus.client("shop-web")
        await edge.call(REVOKE, of_session("s-1"), returns=type(None))
        with pytest.raises(Denied):
            await web.call(REVOKE, of_session("s-2"), returns=type(None))
        # An edge that exposes it by mistake: a user revokes nobody.
        with pytest.raises(RemoteError, match="user_present"):
            await edge.call(REVOKE, of_session("s-3"), returns=type(None), user=bus.user("mallory", "edge"))
        assert [one.id for one in asked] == ["s-1"]


async def test_what_its_settings_lack_is_one_line(tmp_path: Path) -> None:
    file, _ = key_file(tmp_path / "revoker.pem")
    bucket = SMALLEST + 'bundle = "nats://policies"\n'
    named = f'[control.revoker]\nkey = "{file}"\n'
    for text, mode, says in (
        (bucket, 0o600, r"control\.revoker\.key is not set"),
        (SMALLEST + named, 0o600, "is not a bucket"),
        (
            bucket + f'[control.revoker]\nkey = "{tmp_path}/none"\n',
            0o600,
            r"control\.revoker\.key .*none cannot be read",
        ),
        (bucket + named, 0o644, "can be read by others"),
    ):
        file.chmod(mode)
        with pytest.raises(ConfigurationError, match=says):
            async with open_revoker(load(tmp_path, text), counters=Counters()):
                pass
    file.chmod(0o600)
    file.write_text("no key")
    with pytest.raises(ConfigurationError, match="not a private key"):
        async with open_revoker(load(tmp_path, bucket + named), counters=Counters()):
            pass
