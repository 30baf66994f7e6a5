"""One inbox for all answers: each to who waits for it, once; none left waiting when the link has gone."""

from __future__ import annotations

from sealbus.bus.replies import Replies
from sealbus.envelopes.errors import BusUnavailable


class Batch:
    def __init__(self, *subjects: str) -> None:
        self.subjects = subjects
        self.answers: list[tuple[int, bytes, bytes]] = []
        self.errors: list[tuple[int, str]] = []

    def subject_of(self, index: int) -> str:
        return self.subjects[index]

    def answered(self, index: int, block: bytes, payload: bytes) -> None:
        self.answers.append((index, block, payload))

    def failed(self, index: int, error: BusUnavailable) -> None:
        self.errors.append((index, error.detail))


def answer(replies: Replies, number: int | bytes, payload: bytes = b"ok") -> None:
    tail = number if isinstance(number, bytes) else b"%d" % number
    replies.take(replies.inbox + tail, b"", b"", payload)


def test_each_answer_once() -> None:
    replies = Replies("_INBOX.a.")
    batch = Batch("x", "y")
    numbers = [replies.expect(batch, index) for index in range(2)]
    assert replies.pending == 2
    assert not replies.settled.is_set()
    answer(replies, numbers[1])
    answer(replies, numbers[1], b"again")
    answer(replies, numbers[0])
    assert batch.answers == [(1, b"", b"ok"), (0, b"", b"ok")]
    assert replies.settled.is_set()


def test_what_nobody_waits_for() -> None:
    replies = Replies("_INBOX.a.")
    batch = Batch("x")
    number = replies.expect(batch, 0)
    for junk in (b"", b"x", b"-1", b"1.2", "\u00b2".encode(), b"9" * 4_000):
        answer(replies, junk)
    replies.forget(number)
    answer(replies, number)
    assert batch.answers == []
    assert replies.settled.is_set()


def test_the_inbox_cannot_be_guessed() -> None:
    one, other = Replies("_INBOX.a."), Replies("_INBOX.a.")
    assert one.inbox != other.inbox
    assert one.inbox.startswith(b"_INBOX.a.")
    assert len(one.inbox.split(b".")[2]) == 32
    assert one.pattern == one.inbox.decode() + "*"


def test_a_refused_subject_fails_its_oldest_message() -> None:
    replies = Replies("_INBOX.a.")
    batch = Batch("x", "y", "y")
    for index in range(3):
        replies.expect(batch, index)
    replies.refuse("y", BusUnavailable("no"))
    replies.refuse("z", BusUnavailable("no"))
    assert batch.errors == [(1, "no")]
    assert replies.pending == 2


def test_a_lost_link_fails_them_all() -> None:
    replies = Replies("_INBOX.a.")
    batch = Batch("x", "y")
    for index in range(2):
        replies.expect(batch, index)
    replies.fail_all(BusUnavailable("gone"))
    assert batch.errors == [(0, "gone"), (1, "gone")]
    assert replies.settled.is_set()
