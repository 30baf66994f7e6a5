"""What is recorded and kept, what is to be, and what is looked for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from support.policies import bundle

from sealbus.agents.control.notary.policy_archive import GIVEN_UP, OFFERED, WANTED, PolicyArchive, policy_record

ONE = bundle(revision="one")


def test_what_is_offered_stays_until_it_is_kept_and_recorded() -> None:
    archive = PolicyArchive()
    assert archive.next_offered() is None
    archive.offer(ONE)
    archive.offer(ONE)
    assert archive.next_offered() is ONE
    archive.note_kept(ONE.digest)
    assert archive.is_kept(ONE.digest)
    assert archive.next_offered() is ONE
    archive.note_recorded(policy_record(ONE))
    assert archive.is_recorded(ONE.digest)
    assert archive.next_offered() is None
    archive.offer(ONE)
    assert archive.next_offered() is None


async def test_a_revision_that_nobody_offered_is_wanted_once() -> None:
    archive = PolicyArchive()
    archive.offer(ONE)
    waiting = asyncio.create_task(archive.next_wanted())
    archive.note_revisions(["one"])
    await asyncio.sleep(0)
    assert not waiting.done()
    archive.note_revisions(["gone", "other"])
    assert await waiting == "gone"
    archive.give_up("gone")
    archive.note_revisions(["gone"])
    assert await archive.next_wanted() == "other"
    archive.offer(bundle(revision="other"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await archive.next_wanted()


async def test_what_another_notary_recorded_is_wanted_until_it_is_kept() -> None:
    archive = PolicyArchive()
    archive.note_recorded(policy_record(ONE))
    assert await archive.next_wanted() == "one"
    archive.offer(ONE)
    assert archive.next_offered() is ONE
    archive.note_kept(ONE.digest)
    assert archive.next_offered() is None
    archive.note_revisions(["one"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await archive.next_wanted()


async def test_made_up_revisions_fill_no_memory() -> None:
    archive = PolicyArchive()
    for number in range(2 * GIVEN_UP):
        archive.note_revisions([f"r{number}"])
    assert len(await all_wanted(archive)) == WANTED
    for number in range(2 * GIVEN_UP):
        archive.give_up(f"r{number}")
    # The first are forgotten, and wanted again.
    archive.note_revisions(["r0", f"r{2 * GIVEN_UP - 1}"])
    assert await all_wanted(archive) == ["r0"]
    for number in range(OFFERED + 3):
        archive.offer(bundle(revision=f"r{number}"))
    offered = []
    while (one := archive.next_offered()) is not None:
        offered.append(one.revision)
        archive.note_kept(one.digest)
        archive.note_recorded(policy_record(one))
    assert offered == [f"r{number}" for number in range(3, OFFERED + 3)]


async def all_wanted(archive: PolicyArchive) -> list[str]:
    """Give up each revision that is wanted, and return them."""
    found = []
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            while True:
                found.append(await archive.next_wanted())
                archive.give_up(found[-1])
    return found
