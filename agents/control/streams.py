"""The role `streams`: shows at /metrics what streams hold, what waits for each agent, and which servers have what.

It also shows whether JetStream answers at all, how many requests it refused, and how far a mirror is behind. Messages are
never read. Any number of processes may have the role: all of a region show the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from sealbus.agents.control.control import CONTROL
from sealbus.agents.runtime.open import deployment_of, open_connection
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.inspection.agents import AgentSeen, agents_seen
from sealbus.bus.nats.api import ConsumerList, StreamList, api_errors, list_consumers, list_streams
from sealbus.bus.ports import NotPermitted, Request
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.trust.names import Names

_logger: Final = logging.getLogger(__name__)

LOOK_EVERY: Final = 5.0
"""Seconds between two reads: a scrape every 15 s sees no older figures than these."""
_WITHIN: Final = 300.0
"""Seconds for all answers of one read. 10,000 consumers are 40 pages of a list, and a page takes nats-server 4 s if no server
leads one of them."""
_ASK_AGAIN: Final = 3_600.0
"""Seconds until the errors of the API are asked for again where an older policy does not permit it: servers log each try."""
_NOTHING: Final = StreamList([], [])
_NONE: Final = ConsumerList([], [])


class StreamGauges:
    """The newest figures of the broker's streams and agents, as gauges of `counters`."""

    def __init__(
        self, request: Request, counters: Counters, *, names: Names, own: OwnSubjects, every: float = LOOK_EVERY
    ) -> None:
        self._request = request
        self._counters = counters
        self._names = names
        self._own = own
        self._every = every
        self._streams = _NOTHING
        self._consumers: dict[str, ConsumerList] = {}
        self._agents: list[AgentSeen] = []
        self._answered: dict[tuple[str, ...], float] = {}
        """Whether the last list of streams was answered; empty before the first."""
        self._errors: int | None = None
        self._errors_from = 0.0
        self.problem = "the broker was not asked yet"
        """Why figures are missing; empty if they are there."""
        counters.gauges("sealbus_broker_answers", (), lambda: self._answered)
        counters.gauges(
            "sealbus_stream_bytes",
            ("stream",),
            lambda: {(stream.name,): stream.bytes for stream in self._streams.states},
        )
        counters.gauges(
            "sealbus_stream_messages",
            ("stream",),
            lambda: {(stream.name,): stream.messages for stream in self._streams.states},
        )
        counters.gauges("sealbus_stream_limit_bytes", ("stream", "when_full"), self._limits)
        counters.gauges(
            "sealbus_stream_servers",
            ("stream",),
            lambda: {(stream.name,): len(stream.group.servers) or 1 for stream in self._streams.states},
        )
        counters.gauges("sealbus_stream_current_servers", ("stream",), self._current)
        counters.gauges("sealbus_mirror_lag_messages", ("stream",), self._lags)
        counters.gauges("sealbus_mirror_silent_seconds", ("stream",), self._silences)
        counters.gauges(
            "sealbus_consumers",
            ("stream",),
            lambda: {(name,): len(found.states) + len(found.away) for name, found in self._consumers.items()},
        )
        counters.gauges(
            "sealbus_consumers_away",
            ("stream",),
            lambda: {(name,): len(found.away) for name, found in self._consumers.items()},
        )
        counters.gauges("sealbus_replicated_assets", ("server",), self._assets)
        counters.gauges(
            "sealbus_agent_processes", ("agent",), lambda: {(agent.token,): agent.processes for agent in self._agents}
        )
        counters.gauges("sealbus_agent_waiting_messages", ("agent", "stream"), lambda: self._queued("waiting"))
        counters.gauges("sealbus_agent_unsettled_messages", ("agent", "stream"), lambda: self._queued("in_hand"))

    async def run(self) -> None:
        """Read the figures again and again until cancelled. Figures that cannot be read are no longer shown."""
        while True:
            before = self.problem
            await self._read()
            if self.problem != before:
                _logger.log(
                    logging.WARNING if self.problem else logging.INFO,
                    "figures of streams: %s",
                    self.problem or "read again",
                )
            await asyncio.sleep(self._every)

    async def _read(self) -> None:
        streams = _NOTHING
        consumers: dict[str, ConsumerList] = {}
        agents: list[AgentSeen] = []
        problem = ""
        try:
            async with asyncio.timeout(_WITHIN):
                streams = self._streams = await list_streams(self._request)
                self._answered = {(): 1.0}
                for name in (TASKS, EVENTS):
                    if not _elsewhere(name, streams):
                        consumers[name] = await list_consumers(self._request, name)
                await self._count_errors()
            tasks, events = (consumers.get(name, _NONE).states for name in (TASKS, EVENTS))
            agents = agents_seen(tasks, events, {}, names=self._names, own=self._own)
        except (BusUnavailable, TimeoutError) as error:
            # A server gives no answer to a request that is not permitted.
            missing = (
                "streams cannot be listed"
                if streams is _NOTHING
                else "consumers cannot be listed (is CONSUMER.LIST permitted?)"
            )
            problem = f"{missing}: {str(error) or 'no answer'}"
        self._answered = {(): float(streams is not _NOTHING)}
        self._streams, self._consumers, self._agents, self.problem = streams, consumers, agents, problem

    async def _count_errors(self) -> None:
        """Count the errors of the API since the last read. They are the only figure that an older policy does not permit."""
        now = asyncio.get_running_loop().time()
        if now < self._errors_from:
            return
        try:
            errors = await api_errors(self._request)
        except NotPermitted as error:
            self._errors_from = now + _ASK_AGAIN
            _logger.warning("errors of the JetStream API are not counted: %s", error.detail)
        except BusUnavailable as error:
            _logger.debug("errors of the JetStream API were not read: %s", error.detail)
        else:
            # Servers begin at 0 when they start, so that their sum can fall.
            before = errors if self._errors is None else self._errors
            self._counters.add("sealbus_broker_api_errors_total", max(0, errors - before))
            self._errors = errors

    def _current(self) -> dict[tuple[str, ...], float]:
        away: dict[tuple[str, ...], float] = {(name,): 0 for name in self._streams.away}
        return away | {(stream.name,): len(stream.group.current) or 1 for stream in self._streams.states}

    def _lags(self) -> dict[tuple[str, ...], float]:
        return {(stream.name,): stream.mirror.lag for stream in self._streams.states if stream.mirror is not None}

    def _silences(self) -> dict[tuple[str, ...], float]:
        return {
            (stream.name,): math.inf if stream.mirror.silent is None else stream.mirror.silent / 1e6
            for stream in self._streams.states
            if stream.mirror is not None
        }

    def _assets(self) -> dict[tuple[str, ...], float]:
        groups = [stream.group.servers for stream in self._streams.states]
        groups += [consumer.group.servers for found in self._consumers.values() for consumer in found.states]
        counts = Counter(server for servers in groups if len(servers) > 1 for server in servers)
        return {(server,): counts[server] for servers in groups for server in servers}

    def _limits(self) -> dict[tuple[str, ...], float]:
        limits: dict[tuple[str, ...], float] = {}
        for stream in self._streams.states:
            most = stream.config.get("max_bytes")
            if isinstance(most, int) and most > 0:
                limits[stream.name, "refuses" if stream.config.get("discard") == "new" else "drops"] = float(most)
        return limits

    def _queued(self, count: str) -> dict[tuple[str, ...], float]:
        return {
            (agent.token, stream): getattr(queue, count)
            for agent in self._agents
            for stream, queue in ((TASKS, agent.tasks), (EVENTS, agent.events))
            if queue is not None
        }


def _elsewhere(name: str, streams: StreamList) -> bool:
    """Return whether the stream `name` is in another region: this one has a mirror, and not that stream."""
    there = {stream.name for stream in streams.states}.union(streams.away)
    return name not in there and any(stream.mirror is not None for stream in streams.states)


@asynccontextmanager
async def open_streams(settings: Settings, *, counters: Counters) -> AsyncGenerator[StreamGauges, None]:
    """Open the role under the identity `control`, which has to be permitted CONSUMER.LIST of TASKS and EVENTS.

    With INFO permitted as well it counts the errors of the API.
    """
    async with open_connection(CONTROL, settings, counters=counters) as (_, connection):
        yield StreamGauges(
            connection.jetstream, counters, names=settings.names, own=deployment_of(settings).own_subjects
        )
