"""The mirror of AUDIT in another region: a stream of its own, which that region's server fills from the first.

The mirror holds the same messages under the same sequences and times, so that a log of AUDIT can be built from it. Nothing is
handled from it. TASKS and EVENTS have no mirror: the replay guard counts from the creation of the stream that a message is
handled from (SPEC.md section 7), and a mirror is created later than what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.bus.nats.api import StreamState, ask, existing_stream, parse_time
from sealbus.bus.ports import JsonObject, Request
from sealbus.bus.streams.declared import Guard, Stream
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

__all__ = ["MirrorPlan", "describe_mirror", "mirrored_since"]

_CREATED = "sealbus-created"
"""Metadata of a mirror: when the mirrored stream was created, in microseconds. A log begins with that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorPlan:
    """The mirror of `stream`, which is in the JetStream domain `domain`; its messages cross under the subject `deliver`."""

    stream: str
    domain: str
    deliver: str
    max_bytes: int
    replicas: int = 1

    @property
    def name(self) -> str:
        """The name of the mirror."""
        return f"{self.stream}_MIRROR"

    async def declared(self, request: Request) -> Stream:
        """Return the declaration of the mirror.

        Asks the other region when its stream was created, unless the mirror knows. Raises `BusUnavailable` if the other
        region does not answer, `ConfigurationError` if it has no such stream.
        """
        try:
            created = mirrored_since(await existing_stream(request, self.name))
        except ConfigurationError:
            created = await self._created(request)
        return Stream(
            name=self.name,
            description=f"sealbus: copy of {self.stream}, from {self.domain}",
            guard=Guard.MIRROR,
            max_bytes=self.max_bytes,
            max_age=0,
            deny_delete=True,
            deny_purge=True,
            replicas=self.replicas,
            mirror={"name": self.stream, "external": {"api": f"$JS.{self.domain}.API", "deliver": self.deliver}},
            metadata={_CREATED: str(created)},
        )

    async def _created(self, request: Request) -> int:
        answer: JsonObject = await ask(request, f"$JS.{self.domain}.API.STREAM.INFO.{self.stream}")
        created = answer.get("created")
        if not isinstance(created, str):
            raise ConfigurationError(f"{self.domain} has no stream {self.stream}: make that first")
        try:
            return parse_time(created)
        except ValueError as error:
            raise BusUnavailable(f"stream {self.stream}: the server's answer has a malformed time") from error


def mirrored_since(mirror: StreamState) -> int:
    """Return when the stream that `mirror` copies was created; raise `ConfigurationError` if it does not say."""
    metadata = mirror.config.get("metadata")
    created = metadata.get(_CREATED) if isinstance(metadata, dict) else None
    if not isinstance(created, str) or not created.isdigit():
        raise ConfigurationError(f"stream {mirror.name} is no mirror of `sealbus streams apply --mirror`")
    return int(created)


def describe_mirror(mirror: StreamState) -> str:
    """Return one line for operators: up to where the mirror has come, and how long ago anything came."""
    if mirror.mirror is None or mirror.mirror.silent is None:
        return f"{mirror.name}: has #{mirror.last}; nothing has come from the other region since this server started"
    heard, lag = mirror.mirror.silent / 1e6, mirror.mirror.lag
    behind = f"{lag} messages behind" if lag else "it was not behind then"
    return f"{mirror.name}: has #{mirror.last}; the other region was last heard {heard:.1f} s ago: {behind}"
