"""Runs many plans, each in a process of its own that begins alike: what one leaves behind changes no other."""

from __future__ import annotations

import gc
import os
import pickle
import selectors
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from simulation.plan import Plan, plan_of
from simulation.run import Outcome, run_plan

__all__ = ["HASH_SEED", "run_each", "run_one", "warm_up"]

HASH_SEED = "0"
"""PYTHONHASHSEED of every simulation: the order of sets of texts is a part of the schedule."""


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    plan: Plan
    answer: int


def warm_up() -> None:
    """Run a plan here, so that what a process makes once is made before the processes of other plans are forked.

    The caller then ends with `os._exit`: what the killed hosts left may not be finalized.
    """
    gc.disable()
    run_plan(plan_of(0))
    gc.freeze()


def run_each(
    plans: Iterable[Plan], *, jobs: int = 1, prepare: Callable[[], None] = lambda: None, whole: bool = False
) -> Iterator[Outcome]:
    """Yield the outcome of each plan, in the order in which they end; `prepare` is called in each process first.

    Without `whole` the history of a plan that broke nothing is left out. Raises `RuntimeError` if a process dies.
    """
    waiting, running = iter(plans), selectors.DefaultSelector()
    received: dict[int, bytearray] = {}

    def fill() -> None:
        while len(running.get_map()) < jobs and (plan := next(waiting, None)) is not None:
            child = _fork(plan, prepare, whole=whole)
            received[child.answer] = bytearray()
            running.register(child.answer, selectors.EVENT_READ, child)

    fill()
    while running.get_map():
        for key, _ in running.select():
            child: _Child = key.data
            if block := os.read(child.answer, 1 << 20):
                received[child.answer] += block
                continue
            running.unregister(child.answer)
            os.close(child.answer)
            os.waitpid(child.pid, 0)
            outcome = received.pop(child.answer)
            if not outcome:
                raise RuntimeError(f"the simulation of seed {child.plan.seed} died")
            # Of our own child, through a pipe that nobody else has.
            found = pickle.loads(bytes(outcome))  # noqa: S301
            if isinstance(found, BaseException):
                raise RuntimeError(f"seed {child.plan.seed}: {found!r}") from found
            fill()
            yield found


def run_one(plan: Plan, *, prepare: Callable[[], None] = lambda: None) -> Outcome:
    """Return the outcome of one plan, with its history."""
    [outcome] = run_each([plan], prepare=prepare, whole=True)
    return outcome


def _fork(plan: Plan, prepare: Callable[[], None], *, whole: bool) -> _Child:
    answer, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return _Child(pid, plan, answer)
    found: Outcome | BaseException
    try:
        # A collection would finalize what killed hosts left, at a moment that nothing decides.
        gc.disable()
        prepare()
        found = run_plan(plan)
        if not found.broken and not whole:
            found = replace(found, history=())
    except BaseException as error:  # noqa: BLE001  told to the parent
        found = RuntimeError(repr(error))
    try:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(pickle.dumps(found))
    finally:
        # Without clean-up: nothing of the hosts may run any more.
        os._exit(0)
