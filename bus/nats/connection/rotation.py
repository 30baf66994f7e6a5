"""When a new link is made, and how attachments move to it: they enter the new link first, then they leave the old one.

The expiry of a client certificate does not end a TLS connection. So a link is replaced soon after there is a new
certificate, and is cut before `notAfter` otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND

_logger = logging.getLogger(__name__)


LAST_SECONDS = 0.5
"""Seconds for messages on their way when a link is closed; less than the margin before its certificate's end."""


class Attachment(Protocol):
    """A subscription or pull, which lives on links and moves from one link to the next."""

    def enter(self, link: Link) -> None:
        """Subscribe on `link`, in addition to any link still in use. May raise `BusUnavailable`."""

    async def leave(self, link: Link) -> None:
        """Withdraw from `link`; return once no more messages are expected from it. Another link was entered before."""

    def lost(self, link: Link) -> None:
        """Note that `link` is gone. Never raises; called for every link that was entered."""


def seconds_left(link: Link, options: ConnectionOptions, now: int) -> float:
    """Return how many seconds `link` may still be used at `now` microseconds; 0 or less once it must end."""
    return (link.not_after - now) / SECOND - options.margin


def rotate_after(link: Link, options: ConnectionOptions, now: int, random: Callable[[], float]) -> float:
    """Return how many seconds to wait until `link` is replaced because of a newer certificate or bundle."""
    return random() * max(0.0, min(options.jitter, 0.1 * seconds_left(link, options, now)))


async def enter_all(attachments: Sequence[Attachment], link: Link, seconds: float) -> None:
    """Let `attachments` enter `link`; return once its server has seen the subscriptions. Raises `BusUnavailable`."""
    try:
        for attachment in attachments:
            attachment.enter(link)
        await link.flush(seconds)
    except BusUnavailable:
        for attachment in attachments:
            attachment.lost(link)
        raise


async def leave_all(attachments: Sequence[Attachment], link: Link, *, overlap: float, seconds: float) -> None:
    """Let `attachments` leave `link` and close it, at most `seconds` from now.

    The link is kept until its publishes are acknowledged and its deliveries have arrived.
    """
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await asyncio.sleep(overlap)
                async with asyncio.TaskGroup() as group:
                    for attachment in attachments:
                        group.create_task(_leave(attachment, link), name="leave-link")
                await link.replies.settled.wait()
    finally:
        if link.replies.pending:
            _logger.warning("%s: closed with %d answers outstanding", link.url, link.replies.pending)
        for attachment in attachments:
            attachment.lost(link)
        if link.alive:
            # Attachments that were cut short have just unsubscribed: take the messages on their way.
            with contextlib.suppress(BusUnavailable):
                await link.flush(LAST_SECONDS)
        await link.close()


async def _leave(attachment: Attachment, link: Link) -> None:
    # A link that dies meanwhile needs no leaving, and must not disturb the other attachments.
    with contextlib.suppress(BusUnavailable):
        await attachment.leave(link)
