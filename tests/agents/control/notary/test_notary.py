"""The notary on a broker in memory: what it keeps, who keeps it, and what ends it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support.notary import NAMES, SIGNER, Bench, read_log

from sealbus.agents.control.notary.lease import Lease
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.term import Term
from sealbus.envelopes.errors import BusUnavailable, Code, LogError
from sealbus.envelopes.log.entries import EntryKind

OWN = NAMES.id_of("notary")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "log")


async def test_every_message_becomes_an_entry(bench: Bench) -> None:
    bench.record(3)
    bench.garbage()
    async with bench.running() as notary:
        await bench.sealed(4)
        assert notary.problem == ""
        bench.record(2)
        await bench.sealed(7)
        await bench.published(2)
    found = await read_log(bench.broker.connect(), bench.folder, OWN)
    assert found.places[0].kind is EntryKind.CREATION
    assert found.kinds(EntryKind.UNVERIFIED) == [4]
    assert len(found.published) >= 2
    assert len(found.bundles) == 1


async def test_an_empty_stream_has_a_log_of_its_creation_and_of_what_the_notary_says(bench: Bench) -> None:
    async with bench.running():
        await bench.sealed(1)
        await bench.published(1)
    found = await read_log(bench.broker.connect(), bench.folder, OWN)
    # Its bundles alone: a checkpoint is no reason for another.
    assert found.size == 2


async def test_it_goes_on_where_it_was(bench: Bench) -> None:
    for _ in range(3):
        bench.record(2)
        async with bench.running():
            await bench.sealed(bench.stored())
            await bench.published(1)
    found = await read_log(bench.broker.connect(), bench.folder, OWN)
    assert [place.sequence for place in found.places] == list(range(found.size))
    assert len(found.bundles) == 1
    assert len({one.size for one in found.published}) == len(found.published)


@pytest.mark.slow
async def test_of_two_on_one_folder_one_stands_by_until_the_other_is_gone(bench: Bench) -> None:
    async with bench.notary() as second:
        async with bench.running():
            await bench.sealed(1)
            waiting = asyncio.create_task(second.run())
            await bench.until(lambda: "another notary" in second.problem)
            assert not second.serving.is_set()
        await second.serving.wait()
        bench.record()
        await bench.sealed(bench.stored())
        waiting.cancel()
        await asyncio.wait({waiting})
    await read_log(bench.broker.connect(), bench.folder, OWN)


@pytest.mark.slow
async def test_of_two_with_a_folder_each_one_holds_the_lease_and_the_other_makes_the_same_log(
    bench: Bench, tmp_path: Path
) -> None:
    other = FolderStore(tmp_path / "other")
    async with bench.notary(other) as second:
        bench.record(2)
        async with bench.running():
            await bench.sealed(2)
            waiting = asyncio.create_task(second.run())
            await bench.until(lambda: "holds the lease" in second.problem)
        await second.serving.wait()
        bench.record()
        await bench.sealed(bench.stored(), other.folder)
        waiting.cancel()
        await asyncio.wait({waiting})
    first = await read_log(bench.broker.connect(), bench.folder, OWN, whole=False)
    both = await read_log(bench.broker.connect(), other.folder, OWN)
    assert first.size < both.size


async def test_one_that_was_taken_over_signs_nothing_more(bench: Bench, tmp_path: Path) -> None:
    """It is not told, and finds out before it signs: its lease is compared each time."""
    other = FolderStore(tmp_path / "other")
    # To the second, the first has been paused for longer than its lease.
    impatient = replace(bench.options(), lease=0.2)
    async with bench.running(), bench.notary(other, impatient) as second:
        await bench.sealed(1)
        before = bench.checkpoint()
        waiting = asyncio.create_task(second.run())
        await second.serving.wait()
        bench.record()
        await bench.sealed(bench.stored(), other.folder)
        assert bench.checkpoint() == before
        waiting.cancel()
        await asyncio.wait({waiting})
    await read_log(bench.broker.connect(), other.folder, OWN)


async def test_one_that_reads_what_its_successor_signed_before_it_looks_at_its_lease_steps_back(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that is ahead of its log is no inconsistency then."""
    may_sign, held_back = Term._may_sign, set[Lease]()
    monkeypatch.setattr(Term, "_may_sign", lambda term: term._lease not in held_back and may_sign(term))
    other = FolderStore(tmp_path / "other")
    async with bench.running() as first, bench.notary(other) as second:
        await bench.sealed(1)
        held_back.add(first._parts.lease)
        first._parts.lease._renewed = math.inf
        second._parts.lease._seconds = 0.05
        waiting = asyncio.create_task(second.run())
        await second.serving.wait()
        second._parts.lease._seconds = 1.0
        bench.record()
        await bench.sealed(bench.stored(), other.folder)
        await bench.until(lambda: not first.serving.is_set())
        waiting.cancel()
        await asyncio.wait({waiting})


@pytest.mark.slow
async def test_what_may_pass_is_waited_for(bench: Bench) -> None:
    bench.broker.fail("STATE", BusUnavailable("away"))
    async with bench.running() as notary:
        await bench.until(lambda: "bus_unavailable" in notary.problem)
        bench.broker.fail("STATE", None)
        await bench.sealed(1)
        bench.broker.fail("AUDIT", BusUnavailable("full"))
        bench.broker.fail("AUDIT", None)
        bench.record()
        await bench.sealed(bench.stored())
    await read_log(bench.broker.connect(), bench.folder, OWN)


async def test_what_does_not_pass_ends_it_loudly(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async with bench.running():
        await bench.sealed(1)
    (bench.folder / "checkpoint").write_bytes(b"nonsense")
    async with bench.notary() as notary:
        with pytest.raises(LogError) as caught:
            await notary.run()
        assert caught.value.code is Code.BAD_NOTE
        assert notary.problem.startswith("bad_note")
    assert "the notary stops, nothing is added to the log" in caplog.text
    assert SIGNER.secret_text() not in caplog.text


async def test_a_notary_that_is_cancelled_at_any_moment_leaves_its_folder(bench: Bench) -> None:
    store = FolderStore(bench.folder)
    for turns in range(0, 60, 3):
        async with bench.notary(store) as notary:
            task = asyncio.create_task(notary.run())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
        other = FolderStore(bench.folder)
        other.enter()
        other.leave()
    bench.record()
    async with bench.running():
        await bench.sealed(bench.stored())
    await read_log(bench.broker.connect(), bench.folder, OWN, whole=False)
