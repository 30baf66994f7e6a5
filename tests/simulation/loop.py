"""An event loop whose order of steps follows from a seed, with virtual time and hosts.

A step is one callback. The next is drawn among those that are ready; time passes only when none is, to the next timer. Each
step belongs to the host in whose context it was scheduled. A host that was killed takes no further step, and nothing of it
is cleaned up. A host that is paused takes its steps later. Executors run their function at once, within the step that asks.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

__all__ = ["CURRENT", "WORLD", "Host", "SimulatedLoop", "Step"]

_T = TypeVar("_T")

STEP_SECONDS: Final = 0.000_05
"""Virtual seconds that each step takes, so that a step that always schedules another does not stop time."""


class Host:
    """A machine that runs some of the steps, with clocks of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused_until = 0.0
        self.ahead = 0.0
        """Seconds that its wall clock is ahead of the broker's."""
        self.rate = 1.0
        """Seconds that its wall clock counts while one passes; see `set_rate`."""
        self.right_since = 0.0
        self._context: contextvars.Context | None = None

    def context(self) -> contextvars.Context:
        """Return a new context of this host, for a callback that belongs to no task of it."""
        if self._context is None:
            self._context = contextvars.Context()
            self._context.run(CURRENT.set, self)
        return self._context.copy()

    def set_rate(self, rate: float, now: float) -> None:
        """Have its wall clock run at another rate from `now` on, without a jump."""
        self.ahead += now * (self.rate - rate)
        self.rate = rate

    def set_right(self, now: float) -> None:
        """Set its wall clock right, for good."""
        self.ahead, self.rate, self.right_since = 0.0, 1.0, now

    @contextmanager
    def entered(self) -> Generator[None, None, None]:
        """Schedule within the block what this host runs."""
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def __repr__(self) -> str:
        return f"Host({self.name!r})"


WORLD: Final = Host("world")
"""The host of the broker, and of the simulation itself. It is never killed."""
CURRENT: Final = contextvars.ContextVar("CURRENT", default=WORLD)
"""The host that runs the present step."""


class Step(asyncio.TimerHandle):
    """A scheduled callback, and the host that runs it."""

    __slots__ = ("_arguments", "_callback", "_context", "_due", "_is_canceled", "host")

    def __init__(  # the parent's attributes stay unset: it would keep a loop, and a traceback in debug mode
        self, due: float, callback: Callable[..., object], arguments: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self.host = context.get(CURRENT, WORLD)
        self._due = due
        self._callback: Callable[..., object] | None = callback
        self._arguments = arguments
        self._context = context
        self._is_canceled = False

    def cancel(self) -> None:
        """Never run it."""
        self._is_canceled = True
        self._callback, self._arguments = None, ()

    def cancelled(self) -> bool:
        """Return whether it was canceled."""
        return self._is_canceled

    def when(self) -> float:
        """Return the virtual time from which on it may run."""
        return self._due

    @property
    def is_dropped(self) -> bool:
        """Whether it never runs: it was canceled, or its host was killed."""
        return self._is_canceled or not self.host.alive

    @property
    def name(self) -> str:
        """What it does, the same in each run of a seed."""
        owner = getattr(self._callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            return f"{owner.get_name()}: {getattr(owner.get_coro(), '__qualname__', '')}"
        return str(getattr(self._callback, "__qualname__", type(self._callback).__qualname__))

    def run(self) -> None:
        """Run the callback in its context."""
        if self._callback is not None:
            self._context.run(self._callback, *self._arguments)


class _Task(asyncio.Task[_T]):
    """A task whose hash is its number: a `TaskGroup` walks a set of tasks, and addresses differ from run to run."""

    number = 0

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedLoop(asyncio.AbstractEventLoop):
    """The loop of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  a schedule, no secret
        self.steps = 0
        self.now = 0.0
        """Virtual seconds since the start."""
        self.errors: list[str] = []
        """What asyncio would have logged: errors that nobody took."""
        self._ready: list[Step] = []
        self._timers: list[tuple[float, int, Step]] = []
        self._count = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        """Return the virtual seconds since the start. Monotonic clocks of all hosts agree; wall clocks need not."""
        return self.now

    def call_soon(  # type: ignore[override]  # the parent's types let a positional-only callback alone
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Step:
        step = Step(self.now, callback, args, contextvars.copy_context() if context is None else context)
        self._ready.append(step)
        return step

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Step:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Step:
        step = Step(when, callback, args, contextvars.copy_context() if context is None else context)
        self._push(when, step)
        return step

    def _push(self, when: float, step: Step) -> None:
        if math.isnan(when):
            raise ValueError("a timer that is due at no time")
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, step))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, _T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[_T]:
        self._count += 1
        task: _Task[_T] = _Task.__new__(_Task)
        task.number = self._count
        task.__init__(coro, loop=self, name=name or f"task-{self._count}", context=context)  # type: ignore[misc]
        # A task that nobody holds would be finalized, also that of a host that was killed.
        self._tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., _T], *args: Any
    ) -> asyncio.Future[_T]:
        """Run `func` within this step: no order of threads is left to chance."""
        future: asyncio.Future[_T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  passed on to the caller
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{CURRENT.get().name}: {context.get('message')}: {context.get('exception')!r}")

    def run_until(self, done: asyncio.Future[Any], *, most: int) -> None:
        """Take steps until `done`; raise `TimeoutError` after `most` of them, and `RuntimeError` if none is left."""
        asyncio._set_running_loop(self)
        try:
            while not done.done():
                if self.steps >= most:
                    raise TimeoutError(f"not done after {most} steps, {self.now:.1f} s")
                self._take_step()
        finally:
            asyncio._set_running_loop(None)

    def _take_step(self) -> None:
        timers, ready = self._timers, self._ready
        while timers and (timers[0][0] <= self.now or timers[0][2].is_dropped):
            _, _, step = heapq.heappop(timers)
            if not step.is_dropped:
                ready.append(step)
        if not ready:
            if not timers:
                raise RuntimeError("nothing is left to run")
            self.now = max(self.now, timers[0][0])
            return
        index = int(self.random.random() * len(ready))
        step, ready[index] = ready[index], ready[-1]
        ready.pop()
        if step.is_dropped:
            return
        if step.host.paused_until > self.now:
            self._push(step.host.paused_until, step)
            return
        self.steps += 1
        self.now += STEP_SECONDS
        step.run()
