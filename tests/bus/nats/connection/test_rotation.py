"""When links are replaced, how long attempts pause, and what becomes of attachments when a link fails or hangs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from sealbus.bus.nats.connection.inbox import Replies
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.nats.connection.rotation import (
    enter_all,
    leave_all,
    rotate_after,
    seconds_left,
)
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

OPTIONS = ConnectionOptions()


@dataclass
class FakeLink:
    """As much of a link as moving needs."""

    url: str = "tls://x:1"
    alive: bool = True
    not_after: int = 100_000_000
    flush_error: BusUnavailable | None = None
    closed: int = 0
    replies: Replies = field(default_factory=lambda: Replies("_INBOX.a."))

    async def flush(self, seconds: float) -> None:
        del seconds
        if self.flush_error is not None:
            raise self.flush_error

    async def close(self) -> None:
        self.alive = False
        self.closed += 1

    def as_link(self) -> Link:
        return cast("Link", self)


class Attached:
    """Notes what it is told; `hang` keeps it from leaving."""

    def __init__(self, *, enter_error: BusUnavailable | None = None, hang: bool = False) -> None:
        self.told: list[str] = []
        self._enter_error = enter_error
        self._hang = hang

    def enter(self, link: Link) -> None:
        self.told.append("enter")
        if self._enter_error is not None:
            raise self._enter_error

    async def leave(self, link: Link) -> None:
        self.told.append("leave")
        if self._hang:
            await asyncio.Event().wait()
        if not link.alive:
            raise BusUnavailable("gone")

    def lost(self, link: Link) -> None:
        self.told.append("lost")


def test_a_link_must_end_before_its_certificate_does() -> None:
    link = FakeLink(not_after=10_000_000).as_link()
    assert seconds_left(link, OPTIONS, 0) == 9.0
    assert seconds_left(link, OPTIONS, 9_000_000) == 0.0
    assert seconds_left(link, OPTIONS, 11_000_000) == -2.0


def test_rotations_are_spread_but_never_past_a_tenth_of_what_is_left() -> None:
    assert rotate_after(FakeLink(not_after=3_600_000_000).as_link(), OPTIONS, 0, lambda: 0.5) == 0.5
    assert rotate_after(FakeLink(not_after=6_000_000).as_link(), OPTIONS, 0, lambda: 1.0) == pytest.approx(0.5)
    assert rotate_after(FakeLink(not_after=0).as_link(), OPTIONS, 5_000_000, lambda: 1.0) == 0.0


@pytest.mark.parametrize("wrong", [{"connect": -1.0}, {"settle": 4000.0}])
def test_options_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        ConnectionOptions(**wrong)  # type: ignore[arg-type]  # one of several fields


async def test_everything_enters_or_nothing() -> None:
    good, bad = Attached(), Attached(enter_error=BusUnavailable("no"))
    with pytest.raises(BusUnavailable):
        await enter_all([good, bad], FakeLink().as_link(), 1.0)
    assert good.told == ["enter", "lost"]
    assert bad.told == ["enter", "lost"]
    late = Attached()
    with pytest.raises(BusUnavailable, match="silent"):
        await enter_all([late], FakeLink(flush_error=BusUnavailable("silent")).as_link(), 1.0)
    assert late.told == ["enter", "lost"]


async def test_leaving_closes_in_the_end() -> None:
    link, attached = FakeLink(), Attached()
    await leave_all([attached], link.as_link(), overlap=0.0, seconds=1.0)
    assert attached.told == ["leave", "lost"]
    assert link.closed == 1


async def test_one_that_hangs_or_fails_does_not_keep_the_link() -> None:
    link, attached, other = FakeLink(), Attached(hang=True), Attached()
    async with asyncio.timeout(60):
        await leave_all([attached, other], link.as_link(), overlap=0.0, seconds=0.05)
    assert attached.told == other.told == ["leave", "lost"]
    assert link.closed == 1
    dead = FakeLink(alive=False)
    await leave_all([other], dead.as_link(), overlap=0.0, seconds=1.0)
    assert dead.closed == 1


async def test_a_link_whose_certificate_has_run_out_is_closed_at_once() -> None:
    link, attached = FakeLink(), Attached(hang=True)
    async with asyncio.timeout(60):
        await leave_all([attached], link.as_link(), overlap=3_600.0, seconds=-3.0)
    assert link.closed == 1


async def test_canceled_it_closes_all_the_same() -> None:
    link = FakeLink()
    leaving = asyncio.ensure_future(leave_all([Attached(hang=True)], link.as_link(), overlap=0.0, seconds=30.0))
    await asyncio.sleep(0.01)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert link.closed == 1
