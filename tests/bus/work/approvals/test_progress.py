"""How a parked task goes on is stored: its readers are told to wait longer only where that is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from support.envelopes import NOW
from support.parked import UNTIL, parked_task, verdict
from support.sites import site_of

from sealbus.bus.work.approvals.parked_tasks import Parked, ParkedState
from sealbus.bus.work.approvals.progress import DECIDED_WITHIN, LOST, NotNow, ParkedProgress, ParkedStores


class Stores:
    """Parked tasks and markers that note what is written, and take it or not."""

    def __init__(self, *, moves: bool = True, changes: bool = True) -> None:
        self.moves, self.changes = moves, changes
        self.moved: list[int] = []
        self.ended: list[bool] = []
        self.changed: list[tuple[Parked, Parked]] = []

    async def move(self, task: object, *, until: int, since: int) -> object:
        del task
        assert since == UNTIL
        self.moved.append(until)
        return object() if self.moves else None

    async def put(self, task: object, *, until: int, ended: bool, known: object) -> object:
        del task, until, known
        self.ended.append(ended)
        return object()

    async def change(self, before: Parked, after: Parked) -> Parked | None:
        self.changed.append((before, after))
        return after if self.changes or after.state is ParkedState.ENDED else None

    def progress(self, now: int) -> ParkedProgress:
        """Return the progress of an agent whose clock shows `now`."""
        fake = cast("Any", self)
        stores = ParkedStores(tasks=fake, markers=fake, statuses=fake)
        return ParkedProgress(site_of(fake, lambda: now), stores, fake)


async def test_a_verdict_takes_the_task_up_without_a_word_to_its_readers_while_there_is_time() -> None:
    stores, parked = Stores(), parked_task()
    running = await stores.progress(NOW).count_verdict(parked, verdict())
    assert stores.moved == []
    assert stores.changed == [(parked, running)]
    assert (running.state, running.run, running.turn) == (ParkedState.RUNNING, verdict().message, parked.turn + 1)
    assert running.verdicts == (verdict(),)


async def test_readers_wait_until_a_late_verdict_can_have_been_decided() -> None:
    stores, late = Stores(), UNTIL - 1
    await stores.progress(late).count_verdict(parked_task(), verdict())
    assert stores.moved == [late + DECIDED_WITHIN]


async def test_a_task_whose_readers_may_have_concluded_that_it_expired_ends() -> None:
    stores = Stores(moves=False)
    with pytest.raises(NotNow) as raised:
        await stores.progress(UNTIL - 1).count_verdict(parked_task(), verdict())
    assert raised.value.seconds == LOST
    assert stores.ended == [True]
    assert [after.state for _, after in stores.changed] == [ParkedState.ENDED]


async def test_a_verdict_that_is_taken_back_takes_nothing_up() -> None:
    stores, parked = Stores(), parked_task()
    after = await stores.progress(UNTIL - 1).count_withdrawal(parked, verdict())
    assert after == replace(parked, verdicts=(verdict(),))
    assert stores.moved == []


async def test_a_verdict_that_comes_second_is_tried_again_soon() -> None:
    stores = Stores(changes=False)
    for count in (stores.progress(NOW).count_verdict, stores.progress(NOW).count_withdrawal):
        with pytest.raises(NotNow) as raised:
            await count(parked_task(), verdict())
        assert raised.value.seconds == LOST
