"""One pull request: what it asks for, and when it is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.parser import Sink
from sealbus.bus.nats.pull_requests import OpenPull, PullRequest

REQUEST = PullRequest(batch=2, max_bytes=1000, expires=5.0, heartbeat=2.0)


class FakeLink:
    """Keeps the inbox's sink and what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.subjects: list[str] = []
        self.ended: list[int] = []
        self.sink: Sink | None = None

    def subscribe(self, subject: str, sink: Sink, *, refused: Callable[[str], None]) -> int:
        del refused
        self.subjects.append(subject)
        self.sink = sink
        return len(self.subjects)

    def end(self, sid: int) -> None:
        self.ended.append(sid)

    end_after_requests = end

    def write(self, frames: bytes) -> None:
        self.written.append(frames)

    def bring(self, reply: bytes = b"$JS.ACK.x", block: bytes = b"") -> None:
        assert self.sink is not None
        self.sink(b"task.a.run", reply, block, b"x")


class Seen:
    """A pull, and what it said."""

    def __init__(self, request: PullRequest = REQUEST) -> None:
        self.link = FakeLink()
        self.firsts: list[bool] = []
        self.ends: list[tuple[int, str]] = []
        self.pull = OpenPull(
            cast("Link", self.link),
            "_INBOX.a.",
            request,
            single=False,
            deliver=lambda _, first, *__: self.firsts.append(first),
            ended=lambda status, text: self.ends.append((status, text)),
            refused=lambda _: None,
        )


@pytest.fixture
async def seen() -> Seen:
    return Seen()


async def test_a_request_says_how_much_and_for_how_long(seen: Seen) -> None:
    seen.pull.ask("$JS.API.CONSUMER.MSG.NEXT.TASKS.inventory")
    head, body, end = seen.link.written[0].split(b"\r\n")
    assert head.split(b" ") == [
        b"PUB",
        b"$JS.API.CONSUMER.MSG.NEXT.TASKS.inventory",
        seen.link.subjects[0].encode(),
        b"%d" % len(body),
    ]
    assert (json.loads(body), end) == (
        {"batch": 2, "max_bytes": 1000, "expires": 5_000_000_000, "idle_heartbeat": 2_000_000_000},
        b"",
    )


def test_a_request_without_heartbeats_asks_for_none() -> None:
    asked = json.loads(replace(REQUEST, heartbeat=0.0).encode())
    assert asked == {"batch": 2, "max_bytes": 1000, "expires": 5_000_000_000}


@pytest.mark.parametrize(("heartbeat", "since", "patience"), [(2.0, 0.0, 4.5), (0.0, 0.0, 7.5), (0.0, 4.0, 3.5)])
async def test_a_request_counts_as_forgotten_a_while_after_the_server_ought_to_have_spoken(
    heartbeat: float, since: float, patience: float
) -> None:
    """With heartbeats when one is missing, else when the end is, which comes sooner to a request that joins a row."""
    assert replace(REQUEST, heartbeat=heartbeat).ending_with(since).patience == pytest.approx(patience)


async def test_it_is_over_when_all_has_come(seen: Seen) -> None:
    seen.pull.ask("api")
    assert (seen.pull.remaining, seen.pull.untouched) == (2, True)
    seen.link.bring()
    assert (seen.pull.remaining, seen.pull.untouched, seen.ends) == (1, False, [])
    seen.link.bring()
    assert (seen.pull.remaining, seen.firsts, seen.ends) == (0, [True, False], [(0, "")])


async def test_a_heartbeat_does_not_end_it_and_every_other_status_does(seen: Seen) -> None:
    seen.pull.ask("api")
    seen.link.bring(b"", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n")
    assert (seen.pull.remaining, seen.ends) == (2, [])
    seen.link.bring(b"", b"NATS/1.0 409 Consumer Deleted\r\n\r\n")
    assert (seen.pull.remaining, seen.pull.untouched) == (0, False)
    assert seen.ends == [(409, "Consumer Deleted")]
    assert seen.firsts == []


async def test_whatever_the_server_says_shows_that_it_has_not_forgotten(seen: Seen) -> None:
    seen.pull.ask("api")
    asked = seen.pull.silent_at
    assert asked > asyncio.get_running_loop().time()
    await asyncio.sleep(0.01)
    seen.link.bring(b"", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n")
    assert seen.pull.silent_at > asked


async def test_without_heartbeats_only_the_end_shows_that_it_has_not_forgotten() -> None:
    """A message that came early says nothing about the end, which must come in time."""
    seen = Seen(replace(REQUEST, heartbeat=0.0))
    seen.pull.ask("api")
    asked = seen.pull.silent_at
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "time", lambda: asked - 1.0)
        seen.link.bring()
    assert seen.pull.silent_at == asked


async def test_a_closed_slot_owes_nothing_and_still_delivers_what_was_on_its_way(seen: Seen) -> None:
    seen.pull.ask("api")
    seen.pull.close()
    assert (seen.pull.remaining, seen.pull.untouched, seen.link.ended) == (0, False, [1])
    seen.link.bring()
    assert (seen.pull.remaining, seen.firsts) == (0, [False])


async def test_no_two_slots_share_an_inbox_and_none_can_be_guessed() -> None:
    inboxes = [Seen().link.subjects[0] for _ in range(3)]
    assert len(set(inboxes)) == 3
    assert all(inbox.startswith("_INBOX.a.") and len(inbox) == len("_INBOX.a.") + 32 for inbox in inboxes)


@pytest.mark.parametrize(
    ("seconds", "expires", "heartbeat"), [(60.0, 5.0, 2.0), (2.0, 2.0, 1.0), (0.0, 1.0, 0.5), (-3.0, 1.0, 0.5)]
)
def test_a_request_that_must_end_sooner_beats_faster(seconds: float, expires: float, heartbeat: float) -> None:
    shorter = REQUEST.within(seconds)
    assert (shorter.expires, shorter.batch, shorter.max_bytes) == (expires, 2, 1000)
    assert shorter.heartbeat == pytest.approx(heartbeat)


@pytest.mark.parametrize(
    ("since", "expires"),
    [(0.0, 5.0), (0.4, 4.6), (1.0, 4.0), (4.0, 1.0), (4.5, 0.5), (4.6, 5.4), (5.0, 5.0), (5.3, 4.7), (501.0, 4.0)],
)
def test_a_request_ends_when_a_row_ends_that_began_before(since: float, expires: float) -> None:
    aligned = REQUEST.ending_with(since)
    assert aligned.expires == pytest.approx(expires)
    assert aligned.heartbeat == pytest.approx(min(2.0, 0.5 * expires))
    assert (aligned.batch, aligned.max_bytes) == (2, 1000)


async def test_requests_of_all_links_end_together(seen: Seen) -> None:
    """Then their answers come together, to a process with many idle agents in a few reads."""
    loop = asyncio.get_running_loop()
    seen.pull.ask("api")
    other = Seen()
    first = loop.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: first + 2.0)
        other.pull.ask("api")
    [asked] = other.link.written
    assert json.loads(asked.split(b"\r\n")[1])["expires"] == pytest.approx(3e9, rel=0.01)
