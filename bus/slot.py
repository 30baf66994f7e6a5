"""One pull request at a time: an inbox of its own, what JetStream sends there, and how a request ends.

Deliveries come under their own subject, with nothing that names the request; so each slot has an inbox that only its
requests use. What JetStream says about a request comes as a status, on the inbox itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from sealbus.bus.frames import status_of
from sealbus.bus.link import Link

__all__ = ["PullRequest", "Slot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """What a slot asks for: at most `batch` messages and `max_bytes`, waiting `expires` seconds for them.

    While it waits, the server shows every `heartbeat` seconds that it has not forgotten the request.
    """

    batch: int
    max_bytes: int = 8_388_608
    expires: float = 5.0
    heartbeat: float = 2.0

    def within(self, seconds: float) -> PullRequest:
        """Return the same request, waiting no longer than `seconds`, but at least one."""
        expires = min(self.expires, max(1.0, seconds))
        return replace(self, expires=expires, heartbeat=min(self.heartbeat, 0.4 * expires))

    def encode(self) -> bytes:
        """Return it as the API wants it."""
        return json.dumps(
            {
                "batch": self.batch,
                "max_bytes": self.max_bytes,
                "expires": int(self.expires * 1e9),
                "idle_heartbeat": int(self.heartbeat * 1e9),
            }
        ).encode()


class Slot:
    """A place for one pull request on one link.

    `deliver(first, subject, reply, block, payload)` is called for each message, `first` telling whether it is the first
    of its request; `ended(status, text)` when the request is over, with status 0 when all that it asked for has come.
    """

    def __init__(
        self,
        link: Link,
        inbox_prefix: str,
        request: PullRequest,
        *,
        deliver: Callable[[bool, bytes, bytes, bytes, bytes], None],
        ended: Callable[[int, str], None],
        refused: Callable[[str], None],
    ) -> None:
        self.link = link
        self.remaining = 0
        """Messages that the request may still bring; 0 between requests."""
        self.untouched = False
        """Whether a request waits that has brought nothing yet."""
        self._batch = request.batch
        self._body = request.encode()
        self._patience = 2.0 * request.heartbeat + 1.0
        self._deliver = deliver
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._inbox = f"{inbox_prefix}{secrets.token_hex(16)}"
        self._sid = link.subscribe(self._inbox, self._take, refused=refused)

    def ask(self, api: str) -> None:
        """Send the request to the API subject `api`. Raises `BusUnavailable`."""
        body = self._body
        self.link.write(b"PUB %b %b %d\r\n%b\r\n" % (api.encode(), self._inbox.encode(), len(body), body))
        self.remaining = self._batch
        self.untouched = True
        self._heard = self._loop.time()

    @property
    def silent_at(self) -> float:
        """When, by the loop's time, the request counts as forgotten unless the server is heard."""
        return self._heard + self._patience

    def close(self) -> None:
        """Want nothing any more. What the server has sent already is still delivered."""
        self.remaining = 0
        self.untouched = False
        self.link.end(self._sid)

    def _take(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        self._heard = self._loop.time()
        if reply:
            first, self.untouched = self.untouched, False
            if self.remaining:
                self.remaining -= 1
            self._deliver(first, subject, reply, block, payload)
            if not self.remaining:
                self._ended(0, "")
            return
        status, text = status_of(block)
        if status != 100:
            self.remaining = 0
            self.untouched = False
            self._ended(status, text)
