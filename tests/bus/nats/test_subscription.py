"""A listener over several links: what each subscription brings is passed on once, in order, whatever comes when.

Without a server, because the cases are matters of which copy comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.parser import Sink
from sealbus.bus.nats.subscription import PENDING_BYTES, _Listener


class FakeLink:
    """Keeps the sinks; `during_flush` is what arrives before the answer to the PING."""

    def __init__(self) -> None:
        self.sinks: dict[int, Sink] = {}
        self.ended: list[int] = []
        self.during_flush: Callable[[], None] = lambda: None

    def subscribe(self, subject: str, sink: Sink, *, queue: str, refused: Callable[[str], None]) -> int:
        del subject, queue
        self.refused = refused
        sid = len(self.sinks) + 1
        self.sinks[sid] = sink
        return sid

    def unsubscribe(self, sid: int) -> None:
        self.ended.append(sid)

    def forget(self, sid: int) -> None:
        del self.sinks[sid]

    async def flush(self, seconds: float) -> None:
        del seconds
        arrive, self.during_flush = self.during_flush, lambda: None
        arrive()

    def bring(self, *numbers: int) -> None:
        for number in numbers:
            for sink in tuple(self.sinks.values()):
                sink(b"a.b", b"", b"", b"%d" % number)

    def as_link(self) -> Link:
        return cast("Link", self)


class Heard(_Listener):
    def __init__(self, queue: str = "", pending: int = 100) -> None:
        self.dropped = 0
        super().__init__("a.>", queue, pending=pending, overlap=0.0, dropped=self._drop)

    def _drop(self) -> None:
        self.dropped += 1

    def numbers(self) -> list[int]:
        return [int(delivery.payload) for delivery in self.take_batch()]


def links(listener: _Listener, count: int) -> list[FakeLink]:
    made = [FakeLink() for _ in range(count)]
    for link in made:
        listener.enter(link.as_link())
    return made


async def test_both_bring_everything() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    assert old.ended == []
    old.bring(1, 2)
    new.bring(1, 2)
    new.bring(3)
    old.bring(3)
    assert heard.numbers() == [1, 2, 3]
    await heard.leave(old.as_link())
    new.bring(4)
    assert heard.numbers() == [4]
    assert old.sinks == {}


async def test_what_only_the_new_one_brings_waits_for_the_old_one() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    old.bring(1)
    new.bring(1, 2, 3)
    assert heard.numbers() == [1]
    old.during_flush = lambda: old.bring(2)
    await heard.leave(old.as_link())
    assert heard.numbers() == [2, 3]


async def test_a_copy_that_comes_after_the_old_link_was_left() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    old.bring(1, 2)
    new.bring(1)
    new.during_flush = lambda: new.bring(2)
    await heard.leave(old.as_link())
    new.bring(3, 2)
    # The same bytes again, later: that is not the late copy.
    assert heard.numbers() == [1, 2, 3, 2]


async def test_the_same_bytes_twice_are_two_messages() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    old.bring(1, 1)
    new.bring(1, 1, 1)
    await heard.leave(old.as_link())
    assert heard.numbers() == [1, 1, 1]


async def test_three_links_at_a_time() -> None:
    heard = Heard()
    first, second, third = links(heard, 3)
    first.bring(1)
    third.bring(1)
    second.during_flush = lambda: second.bring(1)
    await heard.leave(first.as_link())
    second.bring(2)
    third.bring(2, 3)
    await heard.leave(second.as_link())
    third.bring(4)
    assert heard.numbers() == [1, 2, 3, 4]


async def test_a_lost_old_link_hands_over_at_once() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    old.bring(1)
    new.bring(1, 2)
    heard.lost(old.as_link())
    heard.lost(old.as_link())
    new.bring(3)
    assert heard.numbers() == [1, 2, 3]


async def test_a_new_link_that_fails_changes_nothing() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    old.bring(1)
    new.bring(1, 2)
    heard.lost(new.as_link())
    old.bring(2)
    await heard.leave(new.as_link())
    assert heard.numbers() == [1, 2]


async def test_a_queue_group_holds_nothing_back() -> None:
    heard = Heard(queue="workers")
    old, new = links(heard, 2)
    old.bring(1)
    new.bring(2)
    assert heard.numbers() == [1, 2]
    old.during_flush = lambda: old.bring(3)
    await heard.leave(old.as_link())
    assert heard.numbers() == [3]


async def test_bounds_count_messages_and_bytes() -> None:
    heard = Heard(pending=2)
    old, new = links(heard, 2)
    old.bring(1, 2, 3)
    assert heard.dropped == 1
    new.bring(1, 2, 3, 4)
    assert heard.dropped == 3
    assert heard.numbers() == [1, 2]
    wide = Heard()
    (only,) = links(wide, 1)
    for _ in range(3):
        only.sinks[1](b"a.b", b"", b"", b"x" * (PENDING_BYTES // 2))
    assert wide.dropped == 1
    assert len(wide.take_batch()) == 2
    only.sinks[1](b"a.b", b"", b"", b"x" * (PENDING_BYTES // 2))
    assert len(wide.take_batch()) == 1


async def test_subjects_that_are_no_text_are_shown_escaped() -> None:
    heard = Heard()
    (only,) = links(heard, 1)
    only.sinks[1](b"a.\xff\x0c", b"", b"h", b"1")
    assert [(delivery.subject, delivery.header_block) for delivery in heard.take_batch()] == [("a.\\xff\x0c", b"h")]


async def test_a_link_that_is_lost_while_it_is_left_is_ended_once() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    old.during_flush = lambda: heard.lost(old.as_link())
    await heard.leave(old.as_link())
    new.bring(1)
    assert heard.numbers() == [1]


async def test_closing_while_a_link_is_left_is_no_error() -> None:
    heard = Heard()
    old, new = links(heard, 2)
    old.during_flush = heard.close
    await heard.leave(old.as_link())
    assert [link.sinks for link in (old, new)] == [{}, {}]


async def test_closing_ends_every_subscription() -> None:
    heard = Heard()
    made = links(heard, 2)
    heard.close()
    assert [link.ended for link in made] == [[1], [1]]
    assert [link.sinks for link in made] == [{}, {}]
    made[0].refused("no")
    assert heard.refused == "no"
    assert heard.arrived.is_set()
