"""The pull requests of one consumer: how many at a time, on which link, and what if the server forgets one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from sealbus.bus.link import Link
from sealbus.bus.slot import PullRequest, Slot
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["Slots"]

SLOTS = 2
"""Pull requests at a time and link: while one is drained, the next is already being filled."""

ROOM = 3
"""Batches that may be buffered or asked for; beyond, nothing is asked for until some were taken."""


class Slots:
    """Two slots on each link that was opened and not closed; only the newest link's ask.

    `deliver` gets subject, reply subject, raw header block and payload of each message; `ended` status and text of each
    request that is over; `refused` the server's words if it does not permit an inbox. `waiting()` is how many messages
    were delivered and not taken.
    """

    def __init__(
        self,
        api: str,
        request: PullRequest,
        inbox_prefix: str,
        *,
        deliver: Callable[[bytes, bytes, bytes, bytes], None],
        ended: Callable[[int, str], None],
        refused: Callable[[str], None],
        waiting: Callable[[], int],
    ) -> None:
        self._api = api
        self._request = request
        self._inbox_prefix = inbox_prefix
        self._deliver = deliver
        self._on_ended = ended
        self._refused = refused
        self._waiting = waiting
        self._slots: list[Slot] = []
        self._ended = asyncio.Event()
        self.asking = False
        """Whether requests may be made now."""

    def open(self, link: Link) -> None:
        """Open slots on `link`, which is the newest now. Raises `BusUnavailable`."""
        self._slots += [self._slot(link) for _ in range(SLOTS)]

    def close(self, link: Link) -> None:
        """Close the slots on `link`; what was sent to them already may still be delivered, while the link lives."""
        for slot in self._on(link):
            self._remove(slot)
        self._ended.set()

    async def finish(self, link: Link, seconds: float) -> None:
        """Wait until the requests on `link` have ended by themselves, then close its slots. Raises `BusUnavailable`."""
        while self.busy(link):
            self._ended.clear()
            await self._ended.wait()
        self.close(link)
        await link.flush(seconds)

    def busy(self, link: Link) -> bool:
        """Say whether a request waits on `link`."""
        return any(slot.remaining for slot in self._on(link))

    def ask(self) -> None:
        """Ask on the newest link, as far as there is room; one request that has brought nothing yet is enough."""
        if not self.asking or not self._slots:
            return
        batch = self._request.batch
        own = self._on(self._slots[-1].link)
        asked = sum([slot.remaining for slot in self._slots])
        for slot in own:
            if slot.remaining:
                continue
            if self._waiting() + asked + batch > ROOM * batch or any(other.untouched for other in own):
                return
            with contextlib.suppress(BusUnavailable):
                slot.ask(self._api)
                asked += batch

    def silent_at(self) -> float | None:
        """Return when, by the loop's time, the first request counts as forgotten, if one waits."""
        return min((slot.silent_at for slot in self._slots if slot.remaining), default=None)

    def replace_silent(self, now: float) -> int:
        """Replace the slots whose request the server has forgotten, and return how many they were."""
        silent = [slot for slot in self._slots if slot.remaining and slot.silent_at <= now]
        for slot in silent:
            place = self._slots.index(slot)
            self._remove(slot)
            with contextlib.suppress(BusUnavailable):
                self._slots.insert(place, self._slot(slot.link))
        return len(silent)

    def _slot(self, link: Link) -> Slot:
        # Links whose certificates live shortly are left often, and a request keeps its link until it ends.
        request = self._request.within(link.life / 10.0)
        return Slot(link, self._inbox_prefix, request, deliver=self._take, ended=self._end, refused=self._refused)

    def _on(self, link: Link) -> list[Slot]:
        return [slot for slot in self._slots if slot.link is link]

    def _remove(self, slot: Slot) -> None:
        slot.close()
        self._slots.remove(slot)

    def _take(self, first: bool, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        self._deliver(subject, reply, block, payload)
        if first:
            self.ask()

    def _end(self, status: int, text: str) -> None:
        self._ended.set()
        self._on_ended(status, text)
