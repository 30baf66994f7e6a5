"""A link: one connection to one server, made with one X.509-SVID, from its handshake to its end.

If a link cannot be made, one line names the cause and what to check.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from nats.errors import Error as NatsError

from sealbus.bus.nats.connection.client import SafeClient
from sealbus.bus.nats.connection.inbox import Replies
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.nats.connection.parser import Sink
from sealbus.bus.nats.connection.tls import WrongPeer, client_context
from sealbus.bus.ports import NotLetIn, NotPermitted, X509Material
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_logger = logging.getLogger(__name__)

_VIOLATION = re.compile(r'Permissions Violation for (Publish|Subscription) to "([^"]*)"', re.IGNORECASE)

LEAST_VERSION: Final = (2, 12, 7)
"""The oldest nats-server that we connect to: the first without known faults that break our guarantees.

Fixed by then: routes without authentication, and denied queue subscriptions that were allowed (advisories 2026-16 and
2026-18); clients mistaken for others by names in their certificates (CVE-2026-33248); a stream's log that was dropped with an
unreadable snapshot (#7580). The tests run 2.15.1."""

_VERSION: Final = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+].*)?", re.ASCII)

WRITE_LIMIT = 33_554_432
"""Bytes that may wait for the network. Beyond that `write` raises, so that a stalled server cannot fill our memory."""

CLOSE_SECONDS = 5.0


def fingerprint(material: X509Material, expected: frozenset[SpiffeId]) -> bytes:
    """Return 32 bytes that change with our certificate or the server's bundle; a new link must be made then."""
    digest = hashlib.sha256(b"".join(material.chain))
    for domain in sorted({one.trust_domain for one in expected}, key=lambda one: one.name):
        for anchor in material.bundles.get(domain, ()):
            digest.update(anchor)
    return digest.digest()


@dataclass(slots=True)
class _Subscription:
    subject: str
    refused: Callable[[str], None] | None


class Link:
    """One link, to be opened with `Link.open`. `not_before` and `not_after` are its client certificate's, in microseconds.

    `on_lost(link)` is called once if the link ends other than by `close()`. `on_dropped` is called with the reason or class
    of error for which a message was dropped, `on_lame_duck(link)` when the server is about to shut down.
    """

    def __init__(
        self,
        *,
        url: str,
        material: X509Material,
        expected: frozenset[SpiffeId],
        inbox_prefix: str,
        options: ConnectionOptions,
        on_lost: Callable[[Link], None],
        on_dropped: Callable[[str], None],
        on_lame_duck: Callable[[Link], None],
    ) -> None:
        self.url = url
        self.not_before = material.not_before
        self.not_after = material.not_after
        self.fingerprint = fingerprint(material, expected)
        self.replies = Replies(inbox_prefix)
        self.alive = False
        self.ended = asyncio.Event()
        self.watchers: list[Callable[[], None]] = []
        """Called once when the link has ended, for any reason."""
        self.reason = ""
        self._own_id = str(material.spiffe_id)
        self._on_lost = on_lost
        self._on_dropped = on_dropped
        self._on_lame_duck = on_lame_duck
        self._held: bytearray | None = None
        self._subscriptions: dict[int, _Subscription] = {}
        self._client = SafeClient(
            client_context(material, expected=expected),
            options,
            on_lost=self._lost,
            on_violation=self._violation,
            on_dropped=lambda error: on_dropped(type(error).__name__),
        )

    async def open(self) -> None:
        """Connect. Raises `BusUnavailable` with the cause in one line; `NotLetIn` if the server refuses this workload."""
        try:
            await self._client.open(self.url, self._lame_duck)
        except (OSError, TimeoutError, ValueError, NatsError) as error:
            # A `ValueError` is for a line that no server writes.
            failure = NotLetIn if _is_refusal(error) else BusUnavailable
            raise failure(explain(self.url, self._own_id, error)) from error
        if refused := too_old(self._client._server_info.get("version")):
            await self._client.close()
            raise BusUnavailable(f"{self.url}: {refused}")
        self.alive = True
        self._client.subscribe_raw(self.replies.pattern, "", self.replies.take_answer)

    @property
    def life(self) -> float:
        """The lifetime of its client certificate, in seconds."""
        return (self.not_after - self.not_before) / 1e6

    @property
    def max_payload(self) -> int:
        """The most bytes that the server accepts for header block and payload together."""
        return self._client.max_payload

    @property
    def known_servers(self) -> tuple[str, ...]:
        """Addresses of the cluster's servers that this server announced, as `tls://` URLs."""
        urls = self._client._server_info.get("connect_urls") or ()
        return tuple(f"tls://{address}" for address in urls if isinstance(address, str))

    def write(self, frames: bytes) -> None:
        """Write frames, in the order of the calls. Raises `BusUnavailable` if the link is gone or takes no more."""
        if not self.alive:
            raise BusUnavailable(f"{self.url}: the connection is gone")
        if self._client.buffered() + len(self._held or b"") > WRITE_LIMIT:
            raise BusUnavailable(f"{self.url}: the server takes no more data")
        if self._held is None:
            self._client.write(frames)
        else:
            self._held += frames

    def hold(self) -> None:
        """Hold back all writes until `follow` has ended."""
        self._held = bytearray()

    async def follow(self, old: Link, seconds: float) -> None:
        """Write the held frames once the server has handled all frames of `old`, or after `seconds`.

        This keeps a sender's messages in order through a rotation, because the server serves both links concurrently.
        """
        try:
            await old.flush(seconds)
        except BusUnavailable as error:
            _logger.info("%s; continuing without it", error.detail)
        finally:
            held, self._held = self._held, None
            if self.alive and held:
                self._client.write(bytes(held))

    async def drained(self) -> None:
        """Wait until few bytes wait for the network; return at once if the link is gone."""
        with contextlib.suppress(OSError):
            await self._client.drained()

    def subscribe(
        self, subject: str, sink: Sink, *, queue: str = "", refused: Callable[[str], None] | None = None
    ) -> int:
        """Subscribe and return the subscription's number; `flush` makes sure that the server has seen it.

        `refused` is called with the server's text if it does not allow this subscription.
        """
        if not self.alive:
            raise BusUnavailable(f"{self.url}: the connection is gone")
        sid = self._client.subscribe_raw(subject, queue, sink)
        self._subscriptions[sid] = _Subscription(subject, refused)
        return sid

    def unsubscribe(self, sid: int) -> None:
        """End a subscription; messages on their way still reach the sink until `forget`."""
        if self.alive:
            self._client.unsubscribe_raw(sid)

    def forget(self, sid: int) -> None:
        """Drop messages that still come for a subscription that was ended."""
        self._client.forget_raw(sid)
        self._subscriptions.pop(sid, None)

    def end(self, sid: int) -> None:
        """End a subscription, and forget it once all messages have come that the server sent before it saw the end."""
        if self.alive:
            self._client.unsubscribe_raw(sid)
            self._client.ping().add_done_callback(lambda _: self.forget(sid))
        else:
            self.forget(sid)

    def end_after_requests(self, sid: int) -> None:
        """End a subscription, as `end`, once the server has seen all earlier frames.

        A moment after a request of another account (`agents/dev/nats/accounts`), nats-server looks for the subscriber of its
        answers. If the subscription has ended by then, the server never notices, and answers until the request expires.
        """
        if self.alive:
            self._client.ping().add_done_callback(lambda _: self.end(sid))
        else:
            self.forget(sid)

    async def flush(self, seconds: float) -> None:
        """Wait until the server has handled all written frames. Raises `BusUnavailable`."""
        if not self.alive:
            raise BusUnavailable(f"{self.url}: the connection is gone")
        pong = self._client.ping()
        ended = asyncio.ensure_future(self.ended.wait())
        waited = cast("tuple[asyncio.Future[bool], ...]", (pong, ended))
        try:
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not pong.done():
            pong.cancel()
            raise BusUnavailable(
                f"{self.url}: no answer within {seconds:g} s" if not self.ended.is_set() else self.reason
            )

    async def close(self) -> None:
        """Send the waiting frames, close, and fail all expected answers."""
        self._end("the connection was closed")
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.close()
        except (OSError, TimeoutError, NatsError) as error:
            _logger.debug("closing %s: %s", self.url, error)
            self._client.cut()
        except BaseException:
            self._client.cut()
            raise

    def cut(self, reason: str) -> None:
        """End the link at once, as if it were lost: its certificate has expired, or its server hangs."""
        self._client.cut()
        self._lost(ConnectionAbortedError(reason))

    def _lost(self, error: Exception) -> None:
        if self.alive:
            self._end(f"{self.url}: connection lost ({str(error) or type(error).__name__})")
            self._on_lost(self)

    def _end(self, reason: str) -> None:
        self.alive = False
        self.reason = reason
        self.ended.set()
        for watcher in tuple(self.watchers):
            watcher()
        self.replies.fail_all(BusUnavailable(reason))

    def _violation(self, text: str) -> None:
        self._on_dropped("permissions")
        match = _VIOLATION.search(text)
        _logger.warning("%s: %s", self._own_id, text)
        if match is None:
            return
        if match[1].lower() == "publish":
            self.replies.refuse(match[2], NotPermitted(f"{match[2]}: not permitted to publish"))
            return
        for subscription in list(self._subscriptions.values()):
            if subscription.subject == match[2] and subscription.refused is not None:
                subscription.refused(text)

    async def _lame_duck(self) -> None:
        self._on_lame_duck(self)


def too_old(version: object) -> str:
    """Return one line that says why a server with this `version` is not used; empty if it is new enough."""
    needed = f"nats-server {'.'.join(map(str, LEAST_VERSION))} or newer is needed"
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if match is None:
        return f"the server does not state its version; {needed}"
    if tuple(int(part) for part in match.groups()) < LEAST_VERSION:
        return f"the server is nats-server {match[1]}.{match[2]}.{match[3]}; {needed}"
    return ""


def explain(url: str, own_id: str, error: BaseException) -> str:
    """Return one line for the operator: the server's address, the cause, and what to check."""
    return f"{url}: {_cause(own_id, error)}"


def _cause(own_id: str, error: BaseException) -> str:
    match error:
        case WrongPeer():
            return f"{_one_line(error.args[-1])}: is this the right server?"
        case ssl.SSLCertVerificationError():
            return (
                f"the server's certificate was not issued under the X.509 bundle of its trust domain, or has expired "
                f"({_one_line(getattr(error, 'verify_message', error))})"
            )
        case ssl.SSLError() if _is_clear_text(error):
            return 'the server does not start with TLS: it needs tls { handshake_first: true, min_version: "1.3" }'
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            return f"the server refused the certificate of {own_id} ({_one_line(error.reason)})"
        case ssl.SSLError():
            return f"TLS failed ({_one_line(error.reason or error)})"
        case ConnectionRefusedError():
            return "connection refused: is nats-server running there?"
        case socket.gaierror():
            return f"no such host ({_one_line(error.strerror)})"
        case TimeoutError():
            return "no answer in time"
        case NatsError() if _is_refusal(error):
            # The server sends the same error for an unlisted user, a refusal by its auth callout, and a silent callout.
            return (
                f"the server does not let {own_id} in: it lists no such user, or its auth callout refused it (see control's "
                "log) or did not answer (does `sealbus control run` with the role callout run?)"
            )
        case ConnectionResetError() | BrokenPipeError():
            return f"the server ended the connection: does it accept the certificate of {own_id}?"
        case OSError():
            return _one_line(error.strerror or error)
        case NatsError() if "empty response" in str(error):
            return f"the server ended the connection at once: does it accept the certificate of {own_id}?"
        case _:
            return _one_line(error)


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, NatsError) and "authorization" in str(error).lower()


def _is_clear_text(error: ssl.SSLError) -> bool:
    reason = error.reason or ""
    return any(hint in reason for hint in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET"))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
