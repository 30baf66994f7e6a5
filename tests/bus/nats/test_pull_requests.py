"""Pull requests: two at a time where there is work, one where there is none, and a new one for a forgotten one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

import pytest

from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.parser import Sink
from sealbus.bus.nats.pull_requests import CAREFUL, ROOM, SINGLES, Care, PullRequest, PullRequests
from sealbus.envelopes.errors import BusUnavailable

REQUEST = PullRequest(batch=4, max_bytes=1000, expires=5.0, heartbeat=2.0)


class FakeLink:
    """Keeps the inboxes' sinks and what was asked on each."""

    def __init__(self, life: float = 3600.0) -> None:
        self.alive = True
        self.life = life
        self.expires = 5.0
        self.sinks: dict[int, Sink] = {}
        self.inboxes: dict[bytes, int] = {}
        self.asked: list[int] = []
        self.batch = 4

    def subscribe(self, subject: str, sink: Sink, *, refused: Callable[[str], None]) -> int:
        sid = len(self.inboxes) + 1
        self.sinks[sid] = sink
        self.inboxes[subject.encode()] = sid
        return sid

    def end(self, sid: int) -> None:
        self.sinks.pop(sid, None)

    end_after_requests = end

    def write(self, frames: bytes) -> None:
        if not self.alive:
            raise BusUnavailable("gone")
        head, body, _ = frames.split(b"\r\n")
        verb, api, inbox, size = head.split(b" ")
        assert (verb, api, int(size)) == (b"PUB", b"api", len(body))
        assert json.loads(body) == {
            "batch": self.batch,
            "max_bytes": 1000,
            "expires": pytest.approx(self.expires * 1e9, rel=0.1),
            "idle_heartbeat": pytest.approx(min(2.0, 0.5 * self.expires) * 1e9, rel=0.1),
        }
        self.asked.append(self.inboxes[inbox])

    async def flush(self, seconds: float) -> None: ...

    def bring(self, sid: int, count: int = 1, *, payload: bytes = b"x", block: bytes = b"") -> None:
        for _ in range(count):
            self.sinks[sid](b"task.a.run", b"$JS.ACK.x", block, payload)

    def say(self, sid: int, status: str) -> None:
        self.sinks[sid](b"_INBOX", b"", f"NATS/1.0 {status}\r\n\r\n".encode(), b"")

    def as_link(self) -> Link:
        return cast("Link", self)


class Consumer:
    def __init__(self) -> None:
        self.waiting = 0
        self.ends: list[tuple[int, str]] = []
        self.pulls = PullRequests(
            "api",
            REQUEST,
            "_INBOX.a.",
            deliver=self._deliver,
            ended=self._end,
            refused=lambda _: None,
            waiting=lambda: self.waiting,
        )
        self.pulls.asking = True

    def _deliver(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        self.waiting += 1

    def _end(self, status: int, text: str) -> None:
        self.ends.append((status, text))


@pytest.fixture
async def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
async def link(consumer: Consumer) -> FakeLink:
    made = FakeLink()
    consumer.pulls.open(made.as_link())
    return made


async def test_one_request_while_nothing_comes_two_once_something_does(consumer: Consumer, link: FakeLink) -> None:
    consumer.pulls.ask()
    consumer.pulls.ask()
    assert link.asked == [1]
    link.bring(1)
    assert link.asked == [1, 2]


async def test_what_waits_and_is_asked_for_is_bounded(consumer: Consumer, link: FakeLink) -> None:
    consumer.pulls.ask()
    link.bring(1, 4)
    link.bring(2, 4)
    consumer.pulls.ask()
    assert consumer.waiting == 8
    assert link.asked == [1, 2, 1]
    link.bring(1, 4)
    assert consumer.waiting == ROOM * 4
    consumer.pulls.ask()
    assert link.asked == [1, 2, 1]
    consumer.waiting = 0
    consumer.pulls.ask()
    assert link.asked == [1, 2, 1, 1]
    assert consumer.ends == [(0, "")] * 3


async def test_statuses_end_a_request_and_heartbeats_do_not(consumer: Consumer, link: FakeLink) -> None:
    consumer.pulls.ask()
    link.say(1, "100 Idle Heartbeat")
    assert consumer.pulls.busy(link.as_link())
    for status in ("404 No Messages", "408 Request Timeout", "409 Consumer Deleted", "503", "400 Bad Request"):
        link.say(1, status)
        assert not consumer.pulls.busy(link.as_link())
        consumer.pulls.ask()
    assert [end[0] for end in consumer.ends] == [404, 408, 409, 503, 400]
    assert link.asked == [1] * 6


async def test_what_comes_late_is_taken_all_the_same(consumer: Consumer, link: FakeLink) -> None:
    consumer.pulls.ask()
    link.say(1, "408 Request Timeout")
    link.bring(1)
    assert consumer.waiting == 1


async def test_a_forgotten_request_gets_another_inbox(consumer: Consumer, link: FakeLink) -> None:
    consumer.pulls.ask()
    at = consumer.pulls.silent_at()
    assert at is not None
    assert asyncio.get_running_loop().time() < at
    assert consumer.pulls.replace_silent(at - 0.01) == 0
    assert consumer.pulls.replace_silent(at) == 1
    assert sorted(link.sinks) == [2, 3]
    assert consumer.pulls.silent_at() is None
    consumer.pulls.ask()
    assert link.asked == [1, 3]


async def test_only_the_newest_link_asks_and_an_older_one_finishes(consumer: Consumer, link: FakeLink) -> None:
    consumer.pulls.ask()
    newer = FakeLink()
    consumer.pulls.open(newer.as_link())
    consumer.pulls.ask()
    assert (link.asked, newer.asked) == ([1], [1])
    finishing = asyncio.ensure_future(consumer.pulls.finish(link.as_link(), 1.0))
    await asyncio.sleep(0)
    assert not finishing.done()
    link.bring(1, 4)
    await finishing
    assert link.sinks == {}
    assert link.asked == [1]


@pytest.mark.parametrize(("life", "expires"), [(3600.0, 5.0), (20.0, 2.0), (10.0, 1.0), (2.0, 1.0)])
async def test_a_link_that_lives_shortly_is_not_kept_by_its_requests(life: float, expires: float) -> None:
    consumer, link = Consumer(), FakeLink(life)
    link.expires = expires
    consumer.pulls.open(link.as_link())
    consumer.pulls.ask()
    assert link.asked == [1]


async def test_nothing_is_asked_while_it_may_not_be(consumer: Consumer, link: FakeLink) -> None:
    consumer.pulls.asking = False
    consumer.pulls.ask()
    assert link.asked == []
    consumer.pulls.asking = True
    link.alive = False
    consumer.pulls.ask()
    assert not consumer.pulls.busy(link.as_link())


async def test_an_empty_message_ends_its_request_and_each_is_for_one_message_then(
    consumer: Consumer, link: FakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-server takes it for the last answer between two accounts, and sends the rest of the batch to nobody."""
    consumer.pulls.ask()
    link.bring(1)
    assert link.asked == [1, 2]
    link.batch = 1
    link.bring(1, payload=b"")
    # The inbox of the request is gone, by which the server sees that nobody waits.
    assert 1 not in link.sinks
    assert consumer.ends == [(0, "")]
    # What waits in the other request and what is asked for are bounded as before.
    assert consumer.waiting == 2
    consumer.pulls.ask()
    assert len(link.asked) - 2 == ROOM * 4 - 2 - 4
    consumer.waiting = 0
    consumer.pulls.ask()
    assert len(link.asked) - 2 == ROOM * 4 - 4
    singles = link.asked[2:]
    link.bring(singles[0], payload=b"")
    assert singles[0] in link.sinks, "of a request for one message there is nothing to cut off"
    # The other request ends by itself, and is not made again.
    link.bring(2, 4)
    consumer.waiting = 0
    consumer.pulls.ask()
    assert 2 not in link.sinks
    assert link.asked.count(2) == 1
    assert len(link.sinks) == SINGLES
    # Long after the last empty one there are batches again.
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now + CAREFUL + link.expires)
    link.batch = 4
    consumer.pulls.ask()
    for sid in [sid for sid in link.sinks if sid in link.asked[2:]]:
        link.say(sid, "408 Request Timeout")
    consumer.waiting = 0
    consumer.pulls.ask()
    assert link.asked[-1] > max(singles)
    assert len(link.sinks) == 2


@pytest.mark.parametrize(("payload", "block"), [(b"x", b""), (b"", b"NATS/1.0\r\na: b\r\n\r\n")])
async def test_what_has_a_header_or_a_payload_ends_nothing(
    consumer: Consumer, link: FakeLink, payload: bytes, block: bytes
) -> None:
    consumer.pulls.ask()
    link.bring(1, payload=payload, block=block)
    assert 1 in link.sinks
    assert link.asked == [1, 2]


async def test_care_taken_before_is_taken_from_the_start() -> None:
    care, made = Care(), FakeLink()
    care.note_empty_message()
    pulls = PullRequests(
        "api",
        REQUEST,
        "_INBOX.a.",
        deliver=lambda *_: None,
        ended=lambda *_: None,
        refused=lambda _: None,
        waiting=lambda: 0,
        care=care,
    )
    pulls.open(made.as_link())
    assert len(made.sinks) == SINGLES
