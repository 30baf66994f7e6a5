"""Roles side by side: each opened while those before it run, and all of them or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sealbus.agents.control.control import Control
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError


class Scripted:
    """A role that notes that it runs, and ends as it is told."""

    def __init__(self, problem: str = "", *, ends: bool = False, error: Exception | None = None) -> None:
        self.problem = problem
        self.running = asyncio.Event()
        self.cancelled = False
        self.open = False
        self._ends = ends
        self._error = error

    async def run(self) -> None:
        self.running.set()
        if self._error is not None:
            raise self._error
        if self._ends:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    @asynccontextmanager
    async def opened(self, needs: Scripted | None = None) -> AsyncIterator[Scripted]:
        """Open it; as a role that cannot be opened before `needs` runs."""
        if needs is not None:
            async with asyncio.timeout(60):
                await needs.running.wait()
        self.open = True
        try:
            yield self
        finally:
            self.open = False


async def test_all_roles_run_until_told_to_stop() -> None:
    one, other, stop = Scripted(), Scripted(), asyncio.Event()
    control = Control({"callout": one.opened, "notary": lambda: other.opened(needs=one)})
    assert control.not_ready() == {"callout": "starting", "notary": "starting"}
    running = asyncio.create_task(control.run(stop))
    await control.started.wait()
    assert control.not_ready() == {}
    assert not running.done()
    stop.set()
    await running
    assert (one.cancelled, one.open) == (True, False)
    assert (other.cancelled, other.open) == (True, False)


@pytest.mark.parametrize("error", [None, ConfigurationError("its log was changed")])
async def test_one_that_ends_takes_the_others_with_it(error: Exception | None) -> None:
    well, broken = Scripted(), Scripted(ends=error is None, error=error)
    with pytest.raises(ExceptionGroup) as raised:
        await Control({"policy": well.opened, "notary": broken.opened}).run(asyncio.Event())
    assert raised.group_contains(ConfigurationError)
    assert well.cancelled
    assert not well.open


async def test_one_that_cannot_be_opened_ends_the_process() -> None:
    @asynccontextmanager
    async def unopened() -> AsyncIterator[Scripted]:
        raise BusUnavailable("no such host")
        yield Scripted()

    well = Scripted()
    with pytest.raises(ExceptionGroup) as raised:
        await Control({"callout": well.opened, "policy": unopened}).run(asyncio.Event())
    assert raised.group_contains(BusUnavailable)
    assert well.cancelled


async def test_a_stop_ends_a_role_that_is_still_opened() -> None:
    """It may wait a minute for its identity."""
    waits = asyncio.Event()

    @asynccontextmanager
    async def waiting() -> AsyncIterator[Scripted]:
        waits.set()
        await asyncio.Event().wait()
        yield Scripted()

    stop, later = asyncio.Event(), Scripted()
    control = Control({"callout": waiting, "policy": later.opened})
    running = asyncio.create_task(control.run(stop))
    await waits.wait()
    stop.set()
    async with asyncio.timeout(60):
        await running
    assert not control.started.is_set()
    assert control.not_ready() == {"callout": "starting", "policy": "starting"}


async def test_what_is_wrong_is_said_by_role() -> None:
    stop = asyncio.Event()
    control = Control({"callout": Scripted().opened, "policy": Scripted("no bundle yet").opened})
    running = asyncio.create_task(control.run(stop))
    await control.started.wait()
    assert control.not_ready() == {"policy": "no bundle yet"}
    stop.set()
    await running


def test_a_control_process_without_a_role_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="no role"):
        Control({})
