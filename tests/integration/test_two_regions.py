"""Two regions that are JetStream domains of their own: either is lost, the way between them is cut, and AUDIT is mirrored."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from support.lab import until
from support.two_regions import (
    MIRROR,
    ORIGIN,
    WITHIN,
    Payment,
    TwoRegions,
    bank_of,
    two_regions,
    until_acknowledged,
)

from sealbus import Client, Denied
from sealbus.agents.backup.files import log_end
from sealbus.agents.control.notary.keys import load_signers
from sealbus.agents.control.streams import open_streams
from sealbus.agents.dev.settings_file import running_notary
from sealbus.agents.evidence.trust_root import make_root
from sealbus.bus.stream_names import AUDIT
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.export.format import CHECKPOINT

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow]


@pytest.fixture
async def regions() -> AsyncIterator[TwoRegions]:
    async with two_regions() as running:
        await running.prepare()
        yield running


async def denied(client: Client, action: str, amount: int) -> None:
    """Submit until it is denied: what was pushed is in force once the agent has it."""
    async with asyncio.timeout(WITHIN):
        while True:
            handle = await client.submit(action, Payment(amount=amount))
            with suppress(Denied):
                await handle.result(int)
                amount += 1
                continue
            return


async def test_agents_of_one_region_work_for_the_other_and_the_other_may_be_lost(regions: TwoRegions) -> None:
    home, other, paid = regions.home, regions.other, list[int]()
    key = regions.folder / "platform.pem"
    async with (
        home.working(bank_of("bank", paid)),
        Client("shop", settings=home.settings) as at_home,
    ):
        async with (
            other.working(bank_of("mill", paid)),
            Client("shop", settings=other.settings) as away,
        ):
            assert await until_acknowledged(away, "bank.pay", 1) == 1
            assert await until_acknowledged(at_home, "mill.pay", 2) == 2
            await other.kill()
        # A worker starts, with consumers that are made for it, and what waited for nobody is done.
        async with home.working(bank_of("late", paid)):
            assert await until_acknowledged(at_home, "late.pay", 3) == 3
            await home.done("streams", "plan")
            await home.done("deny", "add", "workload", "shop", "--key", key)
            await denied(at_home, "late.pay", 4)
            await denied(at_home, "bank.pay", 4)
        # In force in the region that comes back with an older policy, too.
        await other.start()
        async with other.working(bank_of("mill", paid)):
            await denied(at_home, "mill.pay", 4)
    assert paid == [1, 2, 3]


async def logged(regions: TwoRegions, sequence: int) -> None:
    """Wait until the notary's log covers this message of AUDIT."""
    log = regions.folder / "log"
    async with asyncio.timeout(WITHIN):
        while not (log / CHECKPOINT).exists() or log_end(log) < sequence:  # noqa: ASYNC110  files
            await asyncio.sleep(0.05)


async def settled(regions: TwoRegions) -> int:
    """Wait until AUDIT gets no more: nobody works, and the notary has published its last checkpoint; return its end."""
    last = -1
    async with asyncio.timeout(WITHIN):
        while (now := await regions.home.last(AUDIT)) != last or log_end(regions.folder / "log") < now - 1:
            last = now
    return last


async def test_the_other_region_shows_how_far_the_mirror_is_behind(regions: TwoRegions) -> None:
    counters = Counters()

    def silent() -> float:
        found = re.search(r'sealbus_mirror_silent_seconds\{stream="AUDIT_MIRROR"\} (\S+)', counters.render())
        return float(found[1]) if found else math.inf

    async with open_streams(regions.other.settings, counters=counters) as role, asyncio.TaskGroup() as group:
        running = group.create_task(role.run())
        # No message comes, and the home is heard nevertheless.
        await until(lambda: silent() < 3 and not role.problem, seconds=WITHIN)
        assert "sealbus_mirror_lag_messages" in counters.render()
        regions.cut()
        await until(lambda: 5 < silent() < math.inf, seconds=WITHIN)
        assert role.problem == ""
        await regions.mend()
        await until(lambda: silent() < 3, seconds=WITHIN)
        running.cancel()


async def test_the_log_is_verified_from_the_mirror_alone_when_the_home_is_lost(regions: TwoRegions) -> None:
    home, other, paid = regions.home, regions.other, list[int]()
    root, log = regions.folder / "root.json", regions.folder / "log"
    policies = regions.folder / "policies"
    verifying = ("audit", "verify", "--mirror", "--root", root, "--policies", policies)
    async with Client("shop", settings=other.settings) as away:
        async with running_notary(home.settings), home.working(bank_of("bank", paid)):
            for amount in (1, 2, 3):
                assert await until_acknowledged(away, "bank.pay", amount) == amount
            await logged(regions, 3)
            [key] = load_signers([regions.folder / "log.key"], ORIGIN)
            root.write_bytes(make_root(home.settings, keys=[key.verifier.text], folder=None).encode())
            await asyncio.to_thread(shutil.copytree, log / "policies", policies)
            await regions.mirrored(await home.last(AUDIT))
            regions.cut()
            before = await other.last(MIRROR)
            async with Client("shop", settings=home.settings) as at_home:
                assert await until_acknowledged(at_home, "bank.pay", 4) == 4
            # What was stored meanwhile is not there, and how old what is there is is said.
            beyond = await home.last(AUDIT)
            assert await other.last(MIRROR) == before < beyond
            code, said = await other.run("streams", "plan", "--mirror")
            assert code == 0
            assert f"{MIRROR}: has #{before}; the other region was last heard" in said
            code, said = await other.run(*verifying)
            assert code == 0, said
            await regions.mend()
            await regions.mirrored(beyond)
        await regions.mirrored(await settled(regions))
        await home.kill()
        log.rename(regions.folder / "lost")
        code, said = await other.run(*verifying)
        assert code == 0, said
        assert "log of " in said
        assert said.rstrip().endswith("verified")
        code, said = await other.run("audit", "export", regions.folder / "kept", *verifying[2:])
        assert code == 0, said
        kept, lost = [(regions.folder / name / CHECKPOINT).read_bytes() for name in ("kept", "lost")]
        # The same log, not another one over the same messages.
        assert kept == lost
        # No stream holds the policies.
        code, said = await other.run(*verifying[:-2])
        assert (code, "missing_file" in said, said.count("missing_file")) == (4, True, 1)
        # Who vouches for what cannot be in what is vouched for.
        code, said = await other.run("audit", "verify", "--mirror")
        assert (code, "--root" in said) == (2, True)
        with pytest.raises(BusUnavailable):
            await away.submit("bank.pay", Payment(amount=5), idempotency_key="payment-5")
        await home.start()
        async with home.working(bank_of("bank", paid)):
            assert await until_acknowledged(away, "bank.pay", 5) == 5
            await regions.mirrored(await home.last(AUDIT))
    assert paid == [1, 2, 3, 4, 5]
