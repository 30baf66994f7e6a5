"""`/healthz`, `/readyz` and `/metrics` for operators and orchestrators: a minimal HTTP/1.1 server, GET only.

It answers from memory, holds no secret, and serves one short request per connection, bounded in size and time. So it needs no
web framework, and clients cannot keep it busy. It has no TLS: keep it on loopback or on a private network. It runs in the
thread of a `LoopWatch`, so that it also answers, with 503 and the reason, while the event loop of the process is blocked.

`/readyz` gives the reasons, by part, why a node cannot take work now. Everyone who can connect sees them: they name parts and
codes, never content. A note (the newest policy bundle was refused, and the old one stays in force) does not make a node
unready.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from sealbus.agents.runtime.metric_texts import METRIC_TEXTS
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.bus.telemetry import CONTENT_TYPE, Counters
from sealbus.envelopes.errors import ConfigurationError, SealbusError
from sealbus.policies.decision.engine import EngineStatus

if TYPE_CHECKING:
    from sealbus.agents.runtime.node import Node

_logger: Final = logging.getLogger(__name__)

REQUEST_BYTES: Final = 4_096
"""Longest request head; those of Kubernetes and Prometheus are under 500 bytes."""
REQUEST_SECONDS: Final = 2.0
"""Seconds for the whole request and its answer."""
PAGE_SECONDS: Final = 1.0
"""Seconds for the event loop of the process to make the answer; after that it counts as blocked."""
CONNECTIONS: Final = 32
"""Most connections at a time; further connections are closed at once."""

_LOOPBACK: Final = "127.0.0.1"
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,255}) HTTP/1\.[01]")
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_PLAIN: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"

_VERSION: Final = version("sealbus")

ASK_EVERY = 2.0
"""Seconds between two queries of the policy engine; a sidecar may have ended since the last decision."""

ASK_SECONDS = 1.0
"""Seconds for the server's answer, which comes from its memory."""

NOT_LET_IN: Final = "not let in by the server"
"""Why a workload that the auth callout refuses is not ready."""

_DISK = "its disk is full or failing; make room, then restart it, for it tries no failed stream again"
"""With nats-server 2.15.1 such a stream stores nothing until the server is restarted, and publishes get no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The state of the process. Each probe returns reasons by part, none if all is well, and must not block.

    `healthy`: why an orchestrator should restart the process. `ready`: why it cannot take work now. `notes` are shown with
    the reasons of `ready`, and change no answer. Everyone who can connect sees all of them: they name parts and codes, never
    content.
    """

    healthy: Callable[[], Mapping[str, str]]
    ready: Callable[[], Mapping[str, str]]
    notes: Callable[[], Mapping[str, str]] = dict


def parse_address(text: str, setting: str = "health.address") -> tuple[str, int]:
    """Return host and port of `host:port`, `:port`, `port` or `[ipv6]:port`; without a host, loopback.

    Port 0 is any free port. Raises `ConfigurationError`, which names `setting`, for any other text.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigurationError(f"{setting} {text!r}: write host:port, with an IPv6 address in brackets")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535 or (colon and host != host.strip()):
        raise ConfigurationError(f"{setting} {text!r}: write host:port, :port or port")
    return host or _LOOPBACK, int(port)


def numbered_address(address: str, number: int) -> str:
    """Return the address `number` ports after `address`; port 0, any free port, stays 0.

    Raises `ConfigurationError` if `address` is no address, or there is no such port after it.
    """
    host, port = parse_address(address)
    if port + number > 65_535:
        raise ConfigurationError(f"health.address {address!r}: there is no port {number} after it for the last of them")
    return f"{f'[{host}]' if ':' in host else host}:{port + number if port else 0}"


class HealthServer:
    """A server of `probes` and `counters` on `address` (`parse_address`), as an async context manager.

    It listens on the thread of `watch`. Probes and counters are read on the event loop that entered it. `render` makes the
    page of metrics, by default that of `counters`.
    """

    def __init__(
        self,
        address: str,
        *,
        probes: Probes,
        counters: Counters,
        watch: LoopWatch,
        render: Callable[[], str] | None = None,
    ) -> None:
        self._host, self._port = parse_address(address)
        self._probes = probes
        self._watch = watch
        self._main: asyncio.AbstractEventLoop | None = None
        counters.describe(METRIC_TEXTS)
        counters.gauge("sealbus_ready", lambda: not probes.ready())
        counters.gauges("sealbus_not_ready", ("part",), lambda: {(part,): 1.0 for part in probes.ready()})
        counters.gauges("sealbus_build_info", ("version",), lambda: {(_VERSION,): 1.0})
        self._render = render or counters.render
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that it listens on, once entered."""
        return self._port

    async def __aenter__(self) -> Self:
        """Start to listen. Raises `ConfigurationError`, one line, if the address cannot be used."""
        self._main = asyncio.get_running_loop()
        try:
            self._server = await self._watch.run_on_thread(self._listen())
        except OSError as error:
            raise ConfigurationError(
                f"health.address {self._host}:{self._port} cannot be used: {error.strerror}; "
                "choose another, or 0 for any free port"
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._watch.run_on_thread(self._close(self._server))

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, self._host, self._port, limit=REQUEST_BYTES)

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        await server.wait_closed()
        for connection in self._open:
            connection.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  the server runs this in its own task
        self._open.add(task)
        try:
            if len(self._open) <= CONNECTIONS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(await self._answer(await _request_head(reader)))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            _logger.debug("health: a request was not completed")
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _answer(self, head: bytes) -> bytes:
        """Return the whole response to a request head; a head that was too long or incomplete is empty."""
        request = _REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0])
        if request is None:
            return _response(400, "one short HTTP/1.1 request, please\n", _PLAIN)
        if request[1] not in (b"GET", b"HEAD"):
            return _response(405, "GET only\n", _PLAIN)
        status, text, media_type = await self._page(request[2].partition(b"?")[0])
        return _response(status, text, media_type, body=request[1] == b"GET")

    async def _page(self, path: bytes) -> tuple[int, str, str]:
        """Return status, text and media type of a page, made on the event loop of the process unless that is blocked."""
        assert self._main is not None  # noqa: S101  entered
        if blocked := self._watch.blocked():
            return _report({"loop": blocked})
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                return await asyncio.wrap_future(
                    asyncio.run_coroutine_threadsafe(self._read_or_report(path), self._main)
                )
        except TimeoutError:
            return _report({"loop": self._watch.blocked() or f"no turn of the event loop for {PAGE_SECONDS:g} s"})

    async def _read_or_report(self, path: bytes) -> tuple[int, str, str]:
        try:
            return self._read(path)
        except Exception as error:
            _logger.exception("health: a probe failed")
            return _report({"probe": type(error).__name__})

    def _read(self, path: bytes) -> tuple[int, str, str]:
        if path == b"/healthz":
            return _report(self._probes.healthy())
        if path == b"/readyz":
            return _report(self._probes.ready(), self._probes.notes())
        if path == b"/metrics":
            return 200, self._render(), CONTENT_TYPE
        return 404, "/healthz, /readyz, /metrics\n", _PLAIN


async def _request_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return b""


def _report(reasons: Mapping[str, str], notes: Mapping[str, str] = MappingProxyType({})) -> tuple[int, str, str]:
    document: dict[str, object] = {"ok": not reasons, "reasons": dict(sorted(reasons.items()))}
    if notes:
        document["notes"] = dict(sorted(notes.items()))
    return (503 if reasons else 200), json.dumps(document) + "\n", _JSON


def _response(status: int, text: str, media_type: str, *, body: bool = True) -> bytes:
    content = text.encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {media_type}\r\n"
        f"Content-Length: {len(content)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (content if body else b"")


class Readiness:
    """The readiness of one entered node. Await `watch_engine` to keep the policy engine's status current."""

    def __init__(self, node: Node, *, every: float = ASK_EVERY) -> None:
        self._node = node
        self._every = every
        self._engine: EngineStatus | None = None
        self._unstored = ""
        node.counters.gauges("sealbus_policy_info", ("engine", "revision"), self._in_force)

    async def watch_engine(self) -> None:
        """Query the policy engine, and NATS if it seems to store nothing, from time to time, until cancelled."""
        counters = self._node.counters
        while True:
            self._unstored = await self._unstored_streams()
            status, last = await self._node.engine.status(), self._engine
            counters.add("sealbus_policy_bundle_refused_total", 0, engine=status.engine)
            if status.revision and status.problem and status.problem != (last.problem if last is not None else ""):
                counters.add("sealbus_policy_bundle_refused_total", engine=status.engine)
            if last is not None and (status.problem, status.missed) != (last.problem, last.missed):
                outcome = "has a problem" if status.problem or status.missed else "recovered"
                _logger.info("policy engine %s: %s", status.engine, outcome)
            self._engine = status
            await asyncio.sleep(self._every)

    def reasons(self) -> dict[str, str]:
        """Return why no work can be taken now, by part; empty if it can. Answers from memory."""
        reasons = {}
        clocks = self._node.clocks
        if (skew := clocks.problem) is not None:
            reasons["clock"] = str(skew)
        if skew is None or clocks.ahead is None:
            # A clock that is wrong cannot tell whether an SVID has expired.
            try:
                self._node.identity.sealer()
            except SealbusError as error:
                reasons["identity"] = str(error.code)
        if not self._node.connected():
            reasons["nats"] = NOT_LET_IN if self._node.refused() else "not connected"
        if self._unstored:
            reasons["disk"] = self._unstored
        if self._engine is None:
            reasons["policy"] = "not asked yet"
        elif not self._engine.revision:
            # Without a revision the engine decides nothing: it does not answer, or has no bundle yet.
            reasons["policy"] = f"{self._engine.engine} engine not ready"
        if problem := self._node.audit.problem:
            reasons["audit"] = problem
        return reasons

    async def _unstored_streams(self) -> str:
        """Return the subjects that nats-server answers for but does not store; empty if it stores or does not answer."""
        node = self._node
        # With a spool, records count as stored without the stream, and the audit writer reports the backlog.
        silent = [token for token in node.outbox.unstored if token != "audit" or node.spool is None]
        if not silent:
            return ""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await node.transport.audit_stream()
        except (SealbusError, TimeoutError):
            return ""
        return f"nats-server answers but does not store {', '.join(f'{token}.*' for token in silent)}: {_DISK}"

    def _in_force(self) -> dict[tuple[str, ...], float]:
        engine = self._engine
        return {(engine.engine, engine.revision): 1.0} if engine is not None and engine.revision else {}

    def notes(self) -> dict[str, str]:
        """Return, by part, problems that an operator should look at although work is taken."""
        notes = {}
        engine = self._engine
        if engine is not None and engine.revision and engine.missed:
            notes["policy"] = f"{len(engine.missed)} of the OPAs do not answer, or decide by another revision"
        elif engine is not None and engine.revision and engine.problem:
            notes["policy"] = f"the newest bundle was refused: revision {engine.revision} stays in force"
        if behind := self._node.audit.behind:
            notes["audit"] = behind
        if self._node.policy_problem():
            notes["policy_store"] = "the newest of a part was refused, or the store is not read: see the log"
        return notes
