"""The pull requests of one consumer: how many at a time, on which link, and what happens if the server forgets a request.

Deliveries come under their own subject and do not name the request, so each request has its own inbox. JetStream reports the
end of a request as a status on that inbox.

Between two accounts (`agents/dev/nats/accounts`) nats-server takes a message without header and payload for the last answer
to a request. Its later messages for that request are lost, and redelivered only after `ack_wait`. Our messages are never
empty, but any agent that may store a message can store an empty one. So a request that brought an empty message counts as
over. For `CAREFUL` seconds after it, each request is for one message, so that the server can cut nothing off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from sealbus.bus.nats.connection.frames import status_of
from sealbus.bus.nats.connection.link import Link
from sealbus.envelopes.errors import BusUnavailable

PULLS = 2
"""Pull requests at a time per link: while one is drained, the server already fills the next."""

LATE = 2.5
"""Seconds by which a heartbeat may be late, or the end of a request that has none."""

ROOM = 3
"""Batches that may be buffered or requested. With more, the next request waits until the caller has taken some."""

CAREFUL = 600.0
"""Seconds after an empty message in which each request is for one message: one batch at most is delayed in that time."""

_ROWS: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""When the first request was made in each event loop: later ones end when that and its successors end, on all links."""

SINGLES = 16
"""Requests for one message at a time per link. The server takes 512 requests per consumer, from all replicas together."""


class Care:
    """Tells whether requests must be for one message each: until `CAREFUL` seconds after the last empty message."""

    def __init__(self) -> None:
        self._until = 0.0

    def note_empty_message(self) -> None:
        """Note an empty message."""
        self._until = asyncio.get_running_loop().time() + CAREFUL

    @property
    def needed(self) -> bool:
        """Whether there was an empty message within `CAREFUL` seconds."""
        return self._until > 0.0 and asyncio.get_running_loop().time() < self._until


class PullRequests:
    """Two pull requests on each open link, or `SINGLES` while care is needed; only those of the newest link are renewed.

    `deliver` gets the subject, reply subject, raw header block and payload of each message; `ended` the status and text of
    each request that is over; `refused` the server's text if it does not permit an inbox. `waiting()` returns how many
    messages were delivered but not taken. Successive readers of one stream may share `care`.
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
        care: Care | None = None,
    ) -> None:
        self._api = api
        self._request = request
        self._inbox_prefix = inbox_prefix
        self._deliver = deliver
        self._on_ended = ended
        self._refused = refused
        self._waiting = waiting
        self._care = care or Care()
        self._careful = False
        self._number = PULLS
        self._pulls: list[OpenPull] = []
        self._ended = asyncio.Event()
        self.asking = False
        """Whether requests may be made now."""

    def open(self, link: Link, number: int = PULLS) -> None:
        """Open `number` pull requests on `link`, which is now the newest. Raises `BusUnavailable`."""
        self._number = number
        self._careful = self._care.needed
        self._pulls += [self._pull(link) for _ in range(SINGLES if self._careful else number)]

    def close(self, link: Link) -> None:
        """Close the requests on `link`; messages that were already sent may still be delivered while the link lives."""
        for pull in self._on(link):
            self._remove(pull)
        self._ended.set()

    async def finish(self, link: Link, seconds: float) -> None:
        """Wait until the requests on `link` have ended, then close them. Raises `BusUnavailable`."""
        while self.busy(link):
            self._ended.clear()
            await self._ended.wait()
        self.close(link)
        await link.flush(seconds)

    def busy(self, link: Link) -> bool:
        """Return whether a request waits on `link`."""
        return any(pull.remaining for pull in self._on(link))

    def ask(self) -> None:
        """Make requests on the newest link if there is room; a request that has brought no message yet is enough."""
        if not self.asking or not self._pulls:
            return
        link = self._pulls[-1].link
        if self._care.needed is not self._careful:
            with contextlib.suppress(BusUnavailable):
                self.open(link, self._number)
        room = ROOM * self._request.batch
        own = self._on(link)
        requested = sum([pull.remaining for pull in self._pulls])
        for pull in own:
            if pull.remaining:
                continue
            if pull.single is not self._careful:
                self._remove(pull)
                continue
            enough = not self._careful and any(other.untouched for other in own)
            if enough or self._waiting() + requested + pull.batch > room:
                return
            with contextlib.suppress(BusUnavailable):
                pull.ask(self._api)
                requested += pull.batch

    def silent_at(self) -> float | None:
        """Return when, by the loop's time, the first waiting request counts as forgotten; `None` if none waits."""
        return min((pull.silent_at for pull in self._pulls if pull.remaining), default=None)

    def replace_silent(self, now: float) -> int:
        """Replace the requests that the server has forgotten, and return how many there were."""
        silent = [pull for pull in self._pulls if pull.remaining and pull.silent_at <= now]
        for pull in silent:
            place = self._pulls.index(pull)
            self._remove(pull)
            with contextlib.suppress(BusUnavailable):
                self._pulls.insert(place, self._pull(pull.link))
        return len(silent)

    def _pull(self, link: Link) -> OpenPull:
        # Links with short-lived certificates are replaced often, and a request keeps its link until it ends.
        request = self._request.within(link.life / 10.0)
        single = self._careful
        return OpenPull(
            link,
            self._inbox_prefix,
            replace(request, batch=1) if single else request,
            single=single,
            deliver=self._take,
            ended=self._end,
            refused=self._refused,
        )

    def _on(self, link: Link) -> list[OpenPull]:
        return [pull for pull in self._pulls if pull.link is link]

    def _remove(self, pull: OpenPull) -> None:
        pull.close()
        self._pulls.remove(pull)

    def _take(self, pull: OpenPull, first: bool, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        self._deliver(subject, reply, block, payload)
        if not block and not payload:
            self._care.note_empty_message()
            if not pull.single and pull in self._pulls:
                self._cut(pull)
        if first:
            self.ask()

    def _cut(self, pull: OpenPull) -> None:
        """End a request that an empty message cut off; unsubscribing its inbox stops the server from sending to it."""
        if not self._careful:
            with contextlib.suppress(BusUnavailable):
                self.open(self._pulls[-1].link, self._number)
        self._remove(pull)
        self._end(0, "")

    def _end(self, status: int, text: str) -> None:
        self._ended.set()
        self._on_ended(status, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """One pull request: at most `batch` messages and `max_bytes`, waiting `expires` seconds for them.

    While it waits, the server shows every `heartbeat` seconds that it has not forgotten the request. Without heartbeats its
    end shows that.
    """

    batch: int
    max_bytes: int = 8_388_608
    expires: float = 5.0
    heartbeat: float = 0.0

    @property
    def patience(self) -> float:
        """Seconds without a word of the server after which it counts as having forgotten the request."""
        return (self.heartbeat or self.expires) + LATE

    def ending_with(self, since: float) -> PullRequest:
        """Return the same request so that it ends when one of a row ends that began `since` seconds ago."""
        left = self.expires - since % self.expires
        # One that would end soon ends with the next of the row.
        return self._for(left if left >= 0.1 * self.expires else left + self.expires)

    def within(self, seconds: float) -> PullRequest:
        """Return the same request with a wait of at most `seconds`, but at least one second."""
        return self._for(min(self.expires, max(1.0, seconds)))

    def _for(self, expires: float) -> PullRequest:
        # The server refuses a request that does not wait for two heartbeats.
        return replace(self, expires=expires, heartbeat=min(self.heartbeat, 0.5 * expires))

    def encode(self) -> bytes:
        """Return the request as the API expects it."""
        heartbeat = {"idle_heartbeat": int(self.heartbeat * 1e9)} if self.heartbeat else {}
        return json.dumps(
            {"batch": self.batch, "max_bytes": self.max_bytes, "expires": int(self.expires * 1e9), **heartbeat}
        ).encode()


class OpenPull:
    """A place on one link for successive pull requests.

    `deliver(pull, first, subject, reply, block, payload)` is called for each message; `first` marks the first of its
    request. `ended(status, text)` is called when the request is over, with status 0 if all requested messages have come.
    `single` marks a place for requests of one message each.
    """

    def __init__(
        self,
        link: Link,
        inbox_prefix: str,
        request: PullRequest,
        *,
        single: bool,
        deliver: Callable[[OpenPull, bool, bytes, bytes, bytes, bytes], None],
        ended: Callable[[int, str], None],
        refused: Callable[[str], None],
    ) -> None:
        self.link = link
        self.single = single
        self.batch = request.batch
        self.remaining = 0
        """Messages that the request may still bring; 0 between requests."""
        self.untouched = False
        """Whether a request is waiting that has brought no message yet."""
        self._request = request
        self._patience = 0.0
        self._deliver = deliver
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._inbox = f"{inbox_prefix}{secrets.token_hex(16)}"
        self._sid = link.subscribe(self._inbox, self._take, refused=refused)

    def ask(self, api: str) -> None:
        """Send the request to the API subject `api`. Raises `BusUnavailable`."""
        now = self._loop.time()
        # The requests of an idle agent are answered in one read and made in one write: its whole cost while idle.
        request = self._request.ending_with(now - _ROWS.setdefault(self._loop, now))
        self._patience = request.patience
        body = request.encode()
        self.link.write(b"PUB %b %b %d\r\n%b\r\n" % (api.encode(), self._inbox.encode(), len(body), body))
        self.remaining = self.batch
        self.untouched = True
        self._heard = now

    @property
    def silent_at(self) -> float:
        """The loop's time at which the request counts as forgotten, unless the server sends something."""
        return self._heard + self._patience

    def close(self) -> None:
        """End the request. Messages that the server has already sent are still delivered."""
        self.remaining = 0
        if self.untouched:
            self.untouched = False
            self.link.end_after_requests(self._sid)
        else:
            self.link.end(self._sid)

    def _take(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        if self._request.heartbeat:
            self._heard = self._loop.time()
        if reply:
            first, self.untouched = self.untouched, False
            if self.remaining:
                self.remaining -= 1
            last = not self.remaining
            self._deliver(self, first, subject, reply, block, payload)
            if last:
                self._ended(0, "")
            return
        status, text = status_of(block)
        if status != 100:
            self.remaining = 0
            self.untouched = False
            self._ended(status, text)
