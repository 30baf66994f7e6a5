"""The promises of sealbus, each checked at the first event of a simulation that breaks it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

from simulation.history import DATED_WRONG, Event, What

__all__ = ["CRASHED", "ENDLESS", "LOG_STANDS", "STOPPED", "TWO_LOGS", "Broken", "Promises"]

STOPPED: Final = 5.0
"""Seconds after a confirmed cancel within which a process may still begin what was canceled: the promise of
`TaskHandle.cancel`, and of envelopes/SPEC.md, section 7, *Cancelling*."""

REOPENED: Final = "a task that had ended has not ended"
TWICE: Final = "two effects under `once`"
UNRECORDED: Final = "begun without a stored record that allowed it"
DENIED: Final = "begun though the policy denies it"
THOUGH_CANCELED: Final = "begun though it was canceled"
UNKNOWN_VERB: Final = "a task failed whose verb a replica has"
TWO_ENDS: Final = "two ends of one task"
NOT_DONE: Final = "a completed task without its effect"
UNTOLD: Final = "a task that has ended, and whose end was not told"
LOST: Final = "a task that nobody handled"
NO_END: Final = "a task without an end"
CRASHED: Final = "an error that no part of the product has foreseen"
ENDLESS: Final = "steps without end"
LOG_STANDS: Final = "the log does not go on"
TWO_LOGS: Final = "two logs"

_OF_WHAT_IS_STORED: Final = frozenset({REOPENED, TWICE, THOUGH_CANCELED, TWO_ENDS, UNTOLD, LOST, NO_END, LOG_STANDS})


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that did not hold, and the event at which it broke."""

    promise: str
    event: Event

    def __str__(self) -> str:
        event = self.event
        return f"{self.promise}: task {event.number} on {event.host} at {event.at:.3f} s ({event.text})"


class Promises:
    """Follows a history. `once` are the verbs that are declared so, `is_denied` tells which tasks the policy denies.

    `running_since` returns since when a host runs without a pause (seconds): what a paused host had taken before, it may
    begin after. Where the broker is `lossy`, and loses what it acknowledged, the promises that rest on what is stored are
    left out (docs/durability.md). With `may_leave_untold` a denial, or a result without `once`, need not be told.
    """

    def __init__(
        self,
        *,
        once: Collection[str],
        is_denied: Callable[[int], bool],
        running_since: Callable[[str], float] = lambda _: 0.0,
        lossy: bool = False,
        may_leave_untold: bool = False,
    ) -> None:
        self.broken: list[Broken] = []
        self._once = frozenset(once)
        self._is_denied = is_denied
        self._running_since = running_since
        self._lossy = lossy
        self._submitted: dict[str, int] = {}
        self._refused: set[str] = set()
        self._may_leave_untold = may_leave_untold
        self._recorded: set[str] = set()
        self._done: dict[int, int] = defaultdict(int)
        self._canceled: dict[str, float] = {}
        self._ends: dict[str, dict[str, str]] = defaultdict(dict)
        self._effects: dict[tuple[int, str], int] = defaultdict(int)

    def observe(self, event: Event) -> None:
        """Take in the next event."""
        match event.what:
            case What.SUBMITTED:
                self._submitted[event.message] = event.number
                if event.text == DATED_WRONG:
                    self._refused.add(event.message)
            case What.RECORDED:
                self._recorded.add(event.message)
            case What.CANCELED:
                self._canceled.setdefault(event.message, event.at)
            case What.BEGAN:
                self._observe_begin(event)
            case What.DONE:
                self._observe_effect(event)
            case What.TOLD:
                self._observe_end(event)
            case What.ASKED:
                if self._ends[event.message]:
                    self.fail(REOPENED, event)
            case _:
                pass

    def _observe_effect(self, event: Event) -> None:
        self._done[event.number] += 1
        self._effects[event.number, event.text] += 1
        if event.text in self._once and self._effects[event.number, event.text] > 1:
            self.fail(TWICE, event)

    def _observe_begin(self, event: Event) -> None:
        if event.message not in self._recorded:
            self.fail(UNRECORDED, event)
        if self._is_denied(event.number):
            self.fail(DENIED, event)
        if event.message in self._canceled:
            since = max(self._canceled[event.message], self._running_since(event.host))
            if event.at > since + STOPPED:
                self.fail(THOUGH_CANCELED, event)

    def _observe_end(self, event: Event) -> None:
        ends = self._ends[event.message]
        if event.text == "failed unknown_verb":
            self.fail(UNKNOWN_VERB, event)
        if any(end != event.text for end in ends.values()):
            self.fail(TWO_ENDS, replace(event, text=" or ".join(sorted({*ends.values(), event.text}))))
        ends[event.host] = event.text
        if event.text.startswith("expired") and event.message not in self._refused:
            self._observe_expired(event)
        if event.text.startswith("completed") and not self._done[event.number]:
            self.fail(NOT_DONE, event)

    def _observe_expired(self, event: Event) -> None:
        """Check a task whose requester had to conclude its end.

        That a denial, or a result without `once`, is told is tried for a while only (`bus/work/status_writer`).
        """
        kept = any((event.number, verb) in self._effects for verb in self._once)
        if self._done[event.number] or self._is_denied(event.number):
            if kept or not self._may_leave_untold:
                self.fail(UNTOLD, event)
        else:
            self.fail(LOST, event)

    def finish(self, at: float, readers: Collection[str]) -> None:
        """Check what must hold once every reader was asked about every task for the last time."""
        for message, number in self._submitted.items():
            for reader in readers:
                if reader not in self._ends[message]:
                    self.fail(NO_END, Event(at, reader, What.ASKED, number, message))

    def fail(self, promise: str, event: Event) -> None:
        """Note that a promise was found broken."""
        if not self._lossy or promise not in _OF_WHAT_IS_STORED:
            self.broken.append(Broken(promise, event))
