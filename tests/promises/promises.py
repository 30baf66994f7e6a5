"""The promises of sealbus, each checked at the first event of a simulation that breaks it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from promises.history import Event, What

__all__ = [
    "CRASHED",
    "DENIED",
    "ENDLESS",
    "GIVEN_UP",
    "LOG_STANDS",
    "LOST",
    "NOT_DONE",
    "NO_END",
    "REFUSED",
    "STOPPED",
    "THOUGH_CANCELED",
    "TICK_MISSED",
    "TWICE",
    "TWO_ENDS",
    "TWO_LOGS",
    "UNASKED",
    "UNDONE",
    "UNPROVEN",
    "UNRECORDED",
    "UNSEEN",
    "UNSHOWN",
    "UNTOLD",
    "UNVERIFIED",
    "WIDENED",
    "Broken",
    "Promises",
]

STOPPED: Final = 5.0
"""Seconds after a confirmed cancel within which a process may still begin what was canceled: the promise of
`TaskHandle.cancel`, and of envelopes/SPEC.md, section 7, *Cancelling*."""

CLOCKS: Final = 5.0
"""Seconds by which the clocks of processes that work may differ (`clock_skew`)."""
LAST_SENT: Final = 50.0
"""Seconds after a confirmed pause or removal of a schedule within which a process that had read it before may still send an
earlier tick: as long as its claim lasts (docs/schedules.md, *What is promised*), by a clock that may differ."""
HEEDED: Final = 0.5
"""Seconds until a revocation that a process has read is in force there."""
ALLOWED_BEGUN: Final = 30.0
"""Seconds within which a handler begins with what was allowed before a revocation: its record is waited for, for 10 s, then
cancels and claims are."""

REOPENED: Final = "a task that had ended has not ended"
TWICE: Final = "two effects under `once`"
UNRECORDED: Final = "begun without a stored record that allowed it"
DENIED: Final = "begun though the policy denies it"
THOUGH_CANCELED: Final = "begun though it was canceled"
UNASKED: Final = "canceled though nobody asked for that"
REFUSED: Final = "rejected though the policy allows it"
UNAPPROVED: Final = "begun without the approval that it waits for"
DENIED_DONE: Final = "rejected though it was done under `once`"
UNHEEDED: Final = "expired though it was approved in time"
GIVEN_UP: Final = "given up before its last attempt"
UNKNOWN_VERB: Final = "a task failed whose verb a replica has"
TWO_ENDS: Final = "two ends of one task"
NOT_DONE: Final = "a completed task without its effect"
UNTOLD: Final = "a task that has ended, and whose end was not told"
LOST: Final = "a task that nobody handled"
NO_END: Final = "a task without an end"
TICKED_TWICE: Final = "a tick that was sent twice"
TICK_MISSED: Final = "a tick that was not sent"
THOUGH_HALTED: Final = "a tick of a schedule that was paused or removed"
WIDENED: Final = "a task that goes beyond what it follows from"
THOUGH_REVOKED: Final = "allowed or begun though it was revoked"
CRASHED: Final = "an error that no part of the product has foreseen"
ENDLESS: Final = "steps without end"
LOG_STANDS: Final = "the log does not go on"
TWO_LOGS: Final = "two logs"
UNSEEN: Final = "a stored record that the console does not show"
UNVERIFIED: Final = "a stored record that does not verify"
UNPROVEN: Final = "a log that does not verify"
UNSHOWN: Final = "a record that was logged and lost, and no finding of that"

APPROVE: Final = "approve"
"""The verdict that lets a task begin."""

GIVING_UP: Final = frozenset({"failed handler_failed", "failed handler_timeout"})
"""Ends of tasks whose every attempt has failed."""

UNDONE: Final = "not done"
"""What is said of a task without an end that nobody has done."""

UNBEGUN: Final = frozenset({"failed outcome_unknown", "failed unknown_verb"})
"""Failures of tasks that nobody need have begun."""

_OF_WHAT_IS_STORED: Final = frozenset(
    {
        REOPENED,
        TWICE,
        THOUGH_CANCELED,
        TWO_ENDS,
        UNHEEDED,
        GIVEN_UP,
        DENIED_DONE,
        UNTOLD,
        LOST,
        NO_END,
        TICKED_TWICE,
        TICK_MISSED,
        THOUGH_HALTED,
        LOG_STANDS,
        UNSEEN,
        UNVERIFIED,
        UNPROVEN,
    }
)


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that did not hold, and the event at which it broke."""

    promise: str
    event: Event

    def __str__(self) -> str:
        event = self.event
        return f"{self.promise}: task {event.number} on {event.host} at {event.at:.3f} s ({event.text})"


class Promises:
    """Follows a history. `once` are the verbs that are declared so. `is_denied` tells which tasks the policy denies, and
    `waits_for_approval` which ones it denies until somebody approves them. `attempts` says how many
    there are at each verb, of which none is left out; `is_counted` tells whether the failure of an attempt that a host began
    at a time is counted in STATE.

    `heeded_since` returns since when a host has to deny the message with an id (seconds, or infinity), by revocations;
    `may_be_refused` tells of which messages nobody tells the end, because their sender is revoked, and `may_be_denied` which
    ones a revocation may deny, whatever the policy says.
    `running_since` returns since when a host runs without a pause (seconds): what a paused host had taken before, it may
    begin after. Where the broker is `lossy`, and loses what it acknowledged, the promises that rest on what is stored are
    left out (docs/durability.md). With `may_leave_untold` a denial, or a result without `once`, need not be told.
    """

    def __init__(
        self,
        *,
        once: Collection[str],
        is_denied: Callable[[int], bool],
        waits_for_approval: Callable[[int], bool] = lambda _: False,
        attempts: Mapping[str, int],
        is_counted: Callable[[str, float], bool] = lambda *_: True,
        running_since: Callable[[str], float] = lambda _: 0.0,
        heeded_since: Callable[[str, str], float] = lambda *_: math.inf,
        may_be_refused: Callable[[str], bool] = lambda _: False,
        may_be_denied: Callable[[str], bool] = lambda _: False,
        lossy: bool = False,
        may_leave_untold: bool = False,
    ) -> None:
        self.broken: list[Broken] = []
        self._once = frozenset(once)
        self._is_denied = is_denied
        self._waits_for_approval = waits_for_approval
        self._approved: set[str] = set()
        """Messages of which somebody has said that they may be done."""
        self._counted: set[str] = set()
        """Those of which that counts."""
        self._attempts = attempts
        self._is_counted = is_counted
        self._attempted: dict[str, list[Event]] = defaultdict(list)
        """The attempts at each message."""
        self._running_since = running_since
        self._heeded_since = heeded_since
        self._may_be_refused = may_be_refused
        self._may_be_denied = may_be_denied
        self._lossy = lossy
        self._submitted: dict[str, int] = {}
        self._refused: set[str] = set()
        self._may_leave_untold = may_leave_untold
        self._recorded: set[str] = set()
        self._done: dict[int, int] = defaultdict(int)
        self._done_once: set[str] = set()
        """Messages that were done under `once`."""
        self._unwanted: set[str] = set()
        self._canceled: dict[str, float] = {}
        self._ends: dict[str, dict[str, str]] = defaultdict(dict)
        self._effects: dict[tuple[int, str], int] = defaultdict(int)
        self._parents: dict[str, str] = {}
        self._sent: set[int] = set()
        self._halted: dict[str, float] = {}
        self._pauses: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def observe(self, event: Event) -> None:
        """Take in the next event."""
        match event.what:
            case What.SUBMITTED:
                self._submitted[event.message] = event.number
                if event.text:
                    self._refused.add(event.message)
            case What.RECORDED:
                self._recorded.add(event.message)
            case What.UNWANTED:
                self._unwanted.add(event.message)
            case What.CANCELED:
                self._canceled.setdefault(event.message, event.at)
            case What.SAID if event.text == APPROVE:
                self._approved.add(event.message)
            case What.COUNTED if event.text == APPROVE:
                self._counted.add(event.message)
            case What.PUT_OFF:
                self._attempted[event.message].append(event)
            case What.BEGAN:
                self._observe_begin(event)
            case What.DONE:
                self._observe_effect(event)
            case What.TOLD:
                self._observe_end(event)
            case What.ASKED:
                if self._ends[event.message]:
                    self.fail(REOPENED, event)
            case What.DECIDED:
                self._observe_revoked(event, HEEDED)
            case What.FOLLOWS:
                self._parents[event.message] = event.text
            case What.SENT:
                self._observe_tick(event)
            case What.HALTED:
                self._halted.setdefault(event.text, event.at)
            case What.RESUMED:
                if (since := self._halted.pop(event.text, None)) is not None:
                    self._pauses[event.text].append((since, event.at))
            case _:
                pass

    def _observe_effect(self, event: Event) -> None:
        self._done[event.number] += 1
        self._effects[event.number, event.text] += 1
        if event.text in self._once:
            self._done_once.add(event.message)
            if self._effects[event.number, event.text] > 1:
                self.fail(TWICE, event)

    def _observe_begin(self, event: Event) -> None:
        self._attempted[event.message].append(event)
        if event.message not in self._recorded:
            self.fail(UNRECORDED, event)
        if self._is_denied(event.number):
            self.fail(DENIED, event)
        if self._waits_for_approval(event.number) and event.message not in self._approved:
            self.fail(UNAPPROVED, event)
        self._observe_revoked(event, ALLOWED_BEGUN)
        for message in (event.message, self._parents.get(event.message, "")):
            if message in self._canceled:
                since = max(self._canceled[message], self._running_since(event.host))
                if event.at > since + STOPPED:
                    self.fail(THOUGH_CANCELED, event)

    def _observe_revoked(self, event: Event, within: float) -> None:
        since = self._heeded_since(event.message, event.host)
        if event.at > max(since, self._running_since(event.host)) + within:
            self.fail(THOUGH_REVOKED, event)

    def _observe_tick(self, event: Event) -> None:
        if event.number in self._sent:
            self.fail(TICKED_TWICE, event)
        self._sent.add(event.number)
        schedule, _, time = event.text.partition(" ")
        tick, halted = float(time), self._halted.get(schedule)
        if halted is not None and (tick > halted + CLOCKS or event.at > halted + LAST_SENT):
            self.fail(THOUGH_HALTED, event)
        if any(since + CLOCKS < tick < until for since, until in self._pauses[schedule]):
            self.fail(THOUGH_HALTED, event)

    def _observe_end(self, event: Event) -> None:
        ends = self._ends[event.message]
        if event.text == "failed unknown_verb":
            self.fail(UNKNOWN_VERB, event)
        attempted = self._attempted[event.message]
        if event.text in GIVING_UP and self._is_early(attempted):
            self.fail(GIVEN_UP, event)
        if event.text.startswith("failed") and event.text not in GIVING_UP and not attempted:
            self._observe_unbegun(event)
        if any(end != event.text for end in ends.values()):
            self.fail(TWO_ENDS, replace(event, text=" or ".join(sorted({*ends.values(), event.text}))))
        ends[event.host] = event.text
        if event.text.startswith("expired") and event.message not in self._refused:
            self._observe_expired(event)
        if event.text.startswith("completed") and not self._done[event.number]:
            self.fail(NOT_DONE, event)
        if event.text.startswith("rejected"):
            self._observe_rejected(event)
        if event.text.startswith("canceled") and not self._unwanted & {
            event.message,
            self._parents.get(event.message, ""),
        }:
            self.fail(UNASKED, event)

    def _observe_unbegun(self, event: Event) -> None:
        """Check the failure of a message that no handler began with: of a copy, it may be that its result is not kept."""
        is_copy = self._done[event.number] > 0
        # A copy that was approved while another is handled is not put off.
        is_copy |= event.text == "failed replayed" and self._waits_for_approval(event.number)
        if event.text not in UNBEGUN and not is_copy:
            self.fail(GIVEN_UP, event)

    def _observe_rejected(self, event: Event) -> None:
        if event.message in self._done_once:
            self.fail(DENIED_DONE, event)
        is_denied = self._is_denied(event.number) or self._waits_for_approval(event.number)
        if not is_denied and event.message not in self._refused and not self._may_be_denied(event.message):
            self.fail(REFUSED, event)

    def _is_early(self, attempted: Sequence[Event]) -> bool:
        """Return whether a message with these attempts may not be given up yet; it may if a failure was not counted."""
        if not all(self._is_counted(event.host, event.at) for event in attempted):
            return False
        return not attempted or len(attempted) < self._attempts.get(attempted[0].text, 0)

    def _observe_expired(self, event: Event) -> None:
        """Check a task whose requester had to conclude its end.

        That a denial, or a result without `once`, is told is tried for a while only (`bus/work/status_writer`).
        """
        if self._waits_for_approval(event.number) and event.message not in self._counted:
            # Nobody approved this copy in time.
            return
        if self._may_be_refused(event.message):
            return
        is_revoked = self._heeded_since(event.message, event.host) < math.inf
        # A copy of what was done gets the result, unless it is denied.
        copied = any((event.number, verb) in self._effects for verb in self._once)
        kept = event.message in self._done_once if is_revoked else copied
        if self._done[event.number] or self._is_denied(event.number) or is_revoked:
            if kept or not self._may_leave_untold:
                self.fail(UNTOLD, event)
        elif event.message in self._counted:
            self.fail(UNHEEDED, event)
        else:
            self.fail(LOST, event)

    def finish(self, at: float, readers: Collection[str], *, but: Callable[[int], bool] = lambda _: False) -> None:
        """Check what must hold once every reader was asked for the last time about every task, `but` those that it names."""
        for message, number in self._submitted.items():
            for reader in readers:
                if reader not in self._ends[message] and not but(number):
                    text = "done" if self._done[number] else UNDONE
                    self.fail(NO_END, Event(at, reader, What.ASKED, number, message, text))

    def fail(self, promise: str, event: Event) -> None:
        """Note that a promise was found broken."""
        if not self._lossy or promise not in _OF_WHAT_IS_STORED:
            self.broken.append(Broken(promise, event))
