"""One bit is flipped in one of three servers' stores, and a majority comes back as it was before: what the log shows.

nats-io/nats-server#7549 and #7545, as Jepsen found them with NATS 2.12.1. Readers are answered by one replica, which the
cluster chooses; here each is asked in turn.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger.servers import Server
from support.replicated_log import Record, ReplicatedLog, Work, records_of, replicated_log

from sealbus import Client
from sealbus.agents.backup.files import log_end
from sealbus.agents.dev.settings_file import running_notary
from sealbus.bus.stream_names import TASKS
from sealbus.envelopes.errors import Code, LogError

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow]

FLIPPED = 6
"""The message whose record is damaged; there are many after it."""


def flip(path: Path, place: Callable[[list[Record]], int]) -> None:
    """Flip the lowest bit of the byte at a place of a message block."""
    block = bytearray(path.read_bytes())
    block[place(records_of(bytes(block)))] ^= 1
    path.write_bytes(block)


def record(number: int, records: list[Record]) -> Record:
    return next(one for one in records if one.sequence == number)


async def damaged(
    site: ReplicatedLog, server: Server, place: Callable[[list[Record]], int], *, kill: bool = False
) -> None:
    """End a server, flip a bit in what it has of AUDIT, and start it."""
    await (server.kill() if kill else server.stop())
    flip(site.block(server), place)
    await server.start()
    await site.elected()


async def whole(site: ReplicatedLog, *servers: Server) -> None:
    """Assert that the log verifies, whichever of these servers answers."""
    for server in servers:
        report, written = await site.verify(server)
        assert (report.findings, written.missing) == ([], []), server.name


async def rebuilt(site: ReplicatedLog, server: Server) -> None:
    """Empty a server's store, and wait until its replica is whole again."""
    await site.rebuild(server)
    await until_whole(site, server)


async def until_whole(site: ReplicatedLog, server: Server) -> None:
    """Wait until a server has got what it lacked: it says that it is current before."""
    async with asyncio.timeout(90):
        while not (await site.verify(server))[0].passed:
            await asyncio.sleep(0.1)


async def whole_or_cut(site: ReplicatedLog, server: Server, logged: int) -> None:
    """Assert that the log verifies where this server answers, or that all is named as missing from some message on."""
    report, written = await site.verify(server)
    if not report.passed:
        assert written.missing == list(range(written.missing[0], logged + 1))
        assert written.missing[0] >= FLIPPED


async def found(site: ReplicatedLog, server: Server) -> tuple[list[int], list[int]]:
    """Return what verification names where this server answers: the sequences that are not as logged, and those not there."""
    report, written = await site.verify(server)
    assert not report.passed
    return [one.sequence for one in report.findings if one.code == Code.LOG_MISMATCH and one.sequence], written.missing


async def test_no_damaged_replica_is_taken_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async with replicated_log(monkeypatch) as site:
        first, second, third = site.servers.storing
        logged = await site.work_logged(12)
        await site.record(1)
        last = await site.last()
        await whole(site, first, second, third)

        # In a body. The server finds it when it reads the message, which is then not there. It does not ask its peers.
        await damaged(site, first, lambda records: record(FLIPPED, records).body + 50)
        assert await found(site, first) == ([FLIPPED], [FLIPPED])
        await whole(site, second, third)
        await site.lead(first)
        assert not await site.is_there(FLIPPED)
        assert await found(site, first) == ([FLIPPED], [FLIPPED])
        await whole(site, second, third)
        # A notary that reads from there stops before it writes anything.
        site.reads_from = first.name
        await stops(site, FLIPPED)
        site.reads_from = ""
        # Without the damaged one every verification passes.
        await first.stop()
        await whole(site, second, third)
        await rebuilt(site, first)

        # In the length of the headers, which is not under the server's checksum: another message is given out as whole.
        await damaged(site, second, lambda records: record(FLIPPED, records).headers_length)
        await site.lead(second)
        assert await site.is_there(FLIPPED)
        assert await found(site, second) == ([FLIPPED], [])
        await whole(site, first, third)
        await rebuilt(site, second)

        # In the length of the record: for the server the block ends there. It gets the rest from the others, or says that it
        # is current without.
        await damaged(site, third, lambda records: record(FLIPPED, records).start)
        await whole_or_cut(site, third, logged)
        await whole(site, first, second)
        await rebuilt(site, third)

        # In a body, and the server was killed: it reads the block as it starts, and ends it there as well.
        await damaged(site, first, lambda records: record(FLIPPED, records).body + 50, kill=True)
        await whole_or_cut(site, first, logged)
        await whole(site, second, third)
        await rebuilt(site, first)

        # In the last record, which the log does not have yet. The server ends the block before it and does not get it again.
        await damaged(site, second, lambda records: records[-1].end - 1)
        await site.lead(second)
        assert not await site.is_there(last)
        await whole(site, first, second, third)
        # A notary that reads from there finds a gap, which is in the log for ever, although two servers have the message.
        site.reads_from = second.name
        async with running_notary(site.settings):
            await site.record(1)
            await site.logged()
        for server in (first, second, third):
            report, _ = await site.verify(server)
            assert (report.findings, report.tally.entries["gap"]) == ([], 1)


async def test_a_task_whose_record_is_damaged_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server that delivers, for good, although the others have the task: nothing is handled and nothing recorded."""
    async with replicated_log(monkeypatch) as site:
        first, second, third = site.servers.storing
        await site.work_logged(1)
        # What the worker had asked for is forgotten with each leader.
        await site.deliver_from(second)
        await site.deliver_from(first)
        async with Client("shop", settings=site.settings) as client:
            before, lost, after = [await client.submit("inventory.update", Work(number=n)) for n in range(3)]
            await first.stop()
            flip(site.block(first, TASKS), lambda records: record(lost.sequence, records).body + 50)
            await first.start()
            await site.elected(TASKS)
            await site.deliver_from(first)
            async with site.working():
                assert [await before.result(), await after.result()] == [0, 2]
            await site.passed(after.sequence)
            await site.lead(second, TASKS)
            assert await site.is_there(lost.sequence, TASKS)
            await site.deliver_from(second)
            async with site.working():
                assert await (await client.submit("inventory.update", Work(number=3))).result() == 3
            assert await lost.status() is None
        await whole(site, first, second, third)


async def test_a_majority_that_forgot_is_found_at_the_first_sequence_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of three servers come back as they were before records that they had acknowledged, and go on without the third."""
    async with replicated_log(monkeypatch) as site:
        first, second, third = site.servers.storing
        await site.work_logged(2)
        kept = await site.last()
        # Every write is synced, and there are none meanwhile.
        for server in (first, second):
            shutil.copytree(site.store(server), site.folder / "before" / server.name)
        async with running_notary(site.settings):
            await site.record(6)
            await site.logged()
        await site.servers.kill()
        for server in (first, second):
            shutil.rmtree(site.store(server))
            shutil.copytree(site.folder / "before" / server.name, site.store(server))
        await asyncio.gather(first.start(), second.start())
        await site.record(2)
        await third.start()
        ends, logged = await site.last(), log_end(site.log)
        assert kept < ends < logged
        for server in (first, second):
            assert await found(site, server) == ([kept + 1], list(range(ends + 1, logged + 1)))
        # The third still answers with what the others do not have: it is not told that it is behind, or ahead.
        assert (await found(site, third))[1] == list(range(ends + 1, logged + 1))
        site.reads_from = first.name
        await stops(site, kept + 1)


async def stops(site: ReplicatedLog, sequence: int) -> None:
    """Assert that a notary stops before it writes anything, and names a sequence."""
    with pytest.raises(ExceptionGroup) as stopped:
        async with asyncio.timeout(90), running_notary(site.settings):
            await asyncio.Event().wait()
    assert stopped.group_contains(LogError, match=f"differs from the log from sequence {sequence} on")
