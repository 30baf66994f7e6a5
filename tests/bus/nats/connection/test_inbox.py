"""One inbox for all answers: each to who waits for it, once; none left waiting when the link has gone."""

from __future__ import annotations

import re

from sealbus.bus.nats.connection.inbox import Replies, tokens
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


def answer(replies: Replies, token: bytes, payload: bytes = b"ok") -> None:
    replies.take_answer(replies.inbox + token, b"", b"", payload)


def test_each_answer_once() -> None:
    replies = Replies("_INBOX.a.")
    batch = Batch("x", "y")
    given = [replies.expect(batch, index) for index in range(2)]
    assert replies.pending == 2
    assert not replies.settled.is_set()
    answer(replies, given[1])
    answer(replies, given[1], b"again")
    answer(replies, given[0])
    assert batch.answers == [(1, b"", b"ok"), (0, b"", b"ok")]
    assert replies.settled.is_set()


def test_what_nobody_waits_for() -> None:
    replies = Replies("_INBOX.a.")
    batch = Batch("x")
    token = replies.expect(batch, 0)
    for junk in (b"", b"x", token[:-1], token + b".", token.upper() + b" ", b"9" * 4_000):
        answer(replies, junk)
    replies.forget(token)
    answer(replies, token)
    assert batch.answers == []
    assert replies.settled.is_set()


def test_no_reply_subject_can_be_guessed_from_another() -> None:
    """A subscriber to events sees their reply subjects; with numbers there it could forge the PubAck of a record."""
    one, other = Replies("_INBOX.a."), Replies("_INBOX.a.")
    assert one.inbox != other.inbox
    assert one.inbox.startswith(b"_INBOX.a.")
    assert one.pattern == one.inbox.decode() + "*"
    batch = Batch(*"x" * 100)
    given = {one.expect(batch, index) for index in range(50)} | set(tokens(50))
    assert len(given) == 100
    assert all(re.fullmatch(b"[0-9a-f]{24}", token) for token in given)
    # No half of one is that of another: nothing is counted, nothing is shared.
    assert len({half for token in given for half in (token[:12], token[12:])}) == 200


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
