"""Finds a smaller plan that breaks the same promise: fewer faults, fewer tasks, shorter and simpler ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from sealbus.bus.cells import DEFAULT
from simulation.cells import EAST, LOGS
from simulation.parts import Parts
from simulation.plan import OF_CELLS, Fault, Plan, PlannedTask
from simulation.run import Outcome

__all__ = ["shrink"]


def shrink(outcome: Outcome, run: Callable[[Plan], Outcome], *, tries: int = 400) -> Outcome:
    """Return the outcome of the smallest plan found within `tries` runs that breaks the first promise of `outcome`."""
    promise, best = outcome.broken[0].promise, outcome
    progress = True
    while progress and tries > 0:
        progress = False
        for plan in _smaller(best.plan):
            if tries <= 0:
                break
            tries -= 1
            found = run(plan)
            if any(one.promise == promise for one in found.broken):
                best, progress = found, True
                break
    return best


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Yield plans that are a step smaller, the largest steps first."""
    for parts in _fewer_parts(plan.parts):
        gone = {*plan.parts.hosts} - {*parts.hosts}
        yield replace(plan, parts=parts, faults=tuple(fault for fault in plan.faults if fault.target not in gone))
    if plan.moved_at is not None:
        yield replace(plan, moved_at=None)
    for east in _fewer_moved(plan.east):
        faults = plan.faults if east else tuple(_of_one_cell(plan.faults))
        yield replace(plan, east=east, faults=faults, moved_at=plan.moved_at if east else None)
    middle = len(plan.faults) // 2
    for faults in (plan.faults[:middle], plan.faults[middle:]):
        if faults != plan.faults:
            yield replace(plan, faults=faults)
    middle = len(plan.tasks) // 2
    for tasks in (plan.tasks[:middle], plan.tasks[middle:]):
        if tasks and tasks != plan.tasks:
            yield replace(plan, tasks=tasks)
    for index in range(len(plan.faults)):
        yield replace(plan, faults=plan.faults[:index] + plan.faults[index + 1 :])
    if len(plan.tasks) > 1:
        for index in range(len(plan.tasks)):
            yield replace(plan, tasks=plan.tasks[:index] + plan.tasks[index + 1 :])
    for index, task in enumerate(plan.tasks):
        for simpler in _simpler_tasks(task):
            yield replace(plan, tasks=(*plan.tasks[:index], simpler, *plan.tasks[index + 1 :]))
    for index, fault in enumerate(plan.faults):
        for shorter in _simpler_faults(fault):
            yield replace(plan, faults=(*plan.faults[:index], shorter, *plan.faults[index + 1 :]))


def _fewer_parts(parts: Parts) -> Iterator[Parts]:
    if parts.schedules:
        yield replace(parts, schedules=())
    if parts.follow_ups:
        yield replace(parts, follow_ups=False)
    if parts.revocations:
        yield replace(parts, revocations=())
    if parts.console:
        yield replace(parts, console=False)
    for index in range(len(parts.schedules)):
        yield replace(parts, schedules=parts.schedules[:index] + parts.schedules[index + 1 :])
    for index in range(len(parts.revocations)):
        yield replace(parts, revocations=parts.revocations[:index] + parts.revocations[index + 1 :])


def _fewer_moved(east: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the agents in another cell without all of them, and without each."""
    if east:
        yield ()
    for index in range(len(east) if len(east) > 1 else 0):
        yield east[:index] + east[index + 1 :]


def _of_one_cell(faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield the faults that there may be without another cell."""
    for fault in faults:
        if fault.kind not in OF_CELLS and fault.target not in LOGS[EAST].hosts:
            yield replace(fault, cell=DEFAULT)


def _simpler_tasks(task: PlannedTask) -> Iterator[PlannedTask]:
    for simpler in (
        replace(task, takes=0.0),
        replace(task, cancel_after=None),
        replace(task, due=0.0),
        replace(task, again_after=None),
        replace(task, grants=None),
        replace(task, user=None),
    ):
        if simpler != task:
            yield simpler


def _simpler_faults(fault: Fault) -> Iterator[Fault]:
    if (half := round(fault.seconds / 2, 1)) > 0:
        yield replace(fault, seconds=half)
