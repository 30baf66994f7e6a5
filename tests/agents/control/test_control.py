"""Roles side by side: all of them or none."""

from __future__ import annotations

import asyncio

import pytest

from sealbus.agents.control.control import Control
from sealbus.envelopes.errors import ConfigurationError


class Scripted:
    """A role that notes that it runs, and ends as it is told."""

    def __init__(self, problem: str = "", *, ends: bool = False, error: Exception | None = None) -> None:
        self.problem = problem
        self.started = asyncio.Event()
        self.cancelled = False
        self._ends = ends
        self._error = error

    async def run(self) -> None:
        self.started.set()
        if self._error is not None:
            raise self._error
        if self._ends:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_all_roles_run_until_told_to_stop() -> None:
    one, other, stop = Scripted(), Scripted(), asyncio.Event()
    running = asyncio.create_task(Control({"callout": one, "notary": other}).run(stop))
    await one.started.wait()
    await other.started.wait()
    assert not running.done()
    stop.set()
    await running
    assert one.cancelled
    assert other.cancelled


@pytest.mark.parametrize("broken", [{"ends": True}, {"error": ConfigurationError("its log was changed")}])
async def test_one_that_ends_takes_the_others_with_it(broken: dict[str, object]) -> None:
    well = Scripted()
    with pytest.raises(ExceptionGroup) as raised:
        await Control({"notary": Scripted(**broken), "policy": well}).run(asyncio.Event())  # type: ignore[arg-type]  # checked by the tests' own parameters
    assert raised.group_contains(ConfigurationError)
    assert well.cancelled or not well.started.is_set()


async def test_what_is_wrong_is_said_by_role() -> None:
    control = Control({"callout": Scripted(), "policy": Scripted("no bundle yet")})
    assert control.not_ready() == {"policy": "no bundle yet"}


def test_a_control_process_without_a_role_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="no role"):
        Control({})
