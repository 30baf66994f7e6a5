"""What agents of one process share: one policy and engine, read over whichever connection there is; no identity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.lab import Lab, running, until
from support.policy_bus import ANCHORS, ROOT

from sealbus.agents.runtime.policy.deny_list import Denial, add
from sealbus.agents.runtime.policy.push import change_platform, content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.process import shared_parts
from sealbus.agents.runtime.process.shared_parts import SharedParts
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import public_pem
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle

pytestmark = pytest.mark.nats

CENTRAL = 'engine = "central"\nopa = ["https://127.0.0.1:1"]\n'


def settings_of(folder: Path, policy: str) -> Settings:
    (folder / "policy.pem").write_text(public_pem(ROOT.public))
    write_bundle(build_bundle(STARTER), folder / "bundle.tar.gz")
    file = folder / "sealbus.toml"
    file.write_text(f'trust_domain = "example.org"\nnats = ["tls://127.0.0.1:1"]\n[policy]\n{policy}\n')
    return load_settings(file, environment={})


def bucket(folder: Path, engine: str = 'engine = "embedded"\n') -> Settings:
    keys = folder / "policy.pem"
    text = f'{engine}bundle = "nats://policies"\ncache = "{folder / "cache"}"\nkeys = ["{keys}"]'
    return settings_of(folder, text)


@dataclass(kw_only=True)
class Stored:
    lab: Lab
    store: PolicyStore
    stack: AsyncExitStack

    async def push(self) -> str:
        """Push one more policy and return the revision that processes then decide by."""
        return (await change_platform(self.store, ANCHORS, add(Denial(kind="user", id="mallory")), ROOT)).composed


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[Stored]:
    async with (
        running(folder / "nats", "a", "b", "operator") as lab,
        lab.connection("operator") as operator,
        AsyncExitStack() as stack,
    ):
        store = PolicyStore(operator, "policies")
        await store.create()
        await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
        yield Stored(lab=lab, store=store, stack=stack)


@asynccontextmanager
async def parts_of(settings: Settings) -> AsyncIterator[SharedParts]:
    async with SharedParts("first", settings, counters=Counters()) as parts:
        yield parts


async def test_agents_share_a_policy_and_the_engine_in_their_process(tmp_path: Path) -> None:
    async with stored(tmp_path) as site, parts_of(bucket(tmp_path)) as parts:
        async with (
            site.lab.connection("a") as one,
            site.lab.connection("b") as other,
            parts.policy(one, site.lab.identity("a")) as first,
            parts.policy(other, site.lab.identity("b")) as second,
        ):
            assert first.engine is second.engine
            assert first.source is second.source
            revision = await site.push()
            async with asyncio.timeout(60):
                while (await second.engine.status()).revision != revision:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["first"]


@pytest.mark.parametrize("leaves", [True, False])
async def test_the_policy_is_read_over_another_connection_once_its_own_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: bool
) -> None:
    """The agent ends, or its connection alone."""
    monkeypatch.setattr(shared_parts, "MOVE_AFTER", 0.1)
    monkeypatch.setattr(shared_parts, "LOOK_EVERY", 0.05)
    async with stored(tmp_path) as site, parts_of(bucket(tmp_path)) as parts, AsyncExitStack() as first:
        identity = site.lab.identity("a")
        one = await first.enter_async_context(site.lab.connection("a", identity=identity))
        await first.enter_async_context(parts.policy(one, identity))
        async with (
            site.lab.connection("b") as other,
            parts.policy(other, site.lab.identity("b")) as second,
        ):
            if leaves:
                await first.aclose()
            else:
                identity.material = None
                one.link.cut("the test's wish")
            revision = await site.push()
            await until(lambda: second.source.in_force.bundle.revision == revision)  # type: ignore[union-attr]
            assert (await second.engine.status()).revision == revision


async def test_a_policy_that_is_followed_no_more_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its agents would decide by an old policy, and say nothing."""

    async def fails(_: object, __: object) -> None:
        raise ValueError("unusual")

    monkeypatch.setattr(shared_parts.SharedPolicy, "_wait_until_lost", fails)
    async with (
        stored(tmp_path) as site,
        parts_of(bucket(tmp_path)) as parts,
        site.lab.connection("a") as one,
        parts.policy(one, site.lab.identity("a")),
    ):
        with pytest.raises(ValueError, match="unusual"):
            async with asyncio.timeout(30):
                await parts.watch()


async def test_a_policy_that_cannot_be_opened_is_opened_by_the_next_agent(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "nats", "a", "operator") as lab,
        parts_of(bucket(tmp_path)) as parts,
        lab.connection("a") as one,
        lab.connection("operator") as operator,
    ):
        with pytest.raises(ConfigurationError, match="policies"):
            async with parts.policy(one, lab.identity("a")):
                pass
        store = PolicyStore(operator, "policies")
        await store.create()
        await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
        async with parts.policy(one, lab.identity("a")) as opened:
            assert (await opened.engine.status()).revision


async def test_a_file_is_read_once(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, 'engine = "embedded"\nbundle = "bundle.tar.gz"')
    async with running(tmp_path / "nats", "a", "b") as lab, parts_of(settings) as parts:
        one, other = lab.connection("a"), lab.connection("b")
        async with (
            parts.policy(one, lab.identity("a")) as first,
            parts.policy(other, lab.identity("b")) as second,
        ):
            assert first.engine is second.engine


async def test_a_central_opa_is_asked_by_each_agent_as_itself(tmp_path: Path) -> None:
    """Its client has the agent's own certificate, so nothing of it is shared."""
    settings = settings_of(tmp_path, f'{CENTRAL}bundle = "bundle.tar.gz"')
    async with (
        running(tmp_path / "nats", "a", "b") as lab,
        parts_of(settings) as parts,
        parts.policy(lab.connection("a"), lab.identity("a")) as first,
        parts.policy(lab.connection("b"), lab.identity("b")) as second,
    ):
        assert first.engine is not second.engine
        assert first.source is second.source
