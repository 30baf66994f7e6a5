"""Periods of the audit stream: one stream at a time takes `audit.>`, until an operator rolls over to the next stream.

::

    roll     AUDIT: audit.> -> closed.AUDIT      then      AUDIT-2026-12 created with audit.>

Between the two steps, for milliseconds, no stream stores records, and writers retry until their records are acknowledged.
Writers publish by subject and learn of the new stream from its acknowledgements; nothing is restarted, copied or deleted. The
former stream keeps its records, takes no more, and is read under its own name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sealbus.bus.nats.api import (
    RECORDS,
    closed_subject,
    create_stream,
    existing_stream,
    stream_names,
    stream_state,
    subjects_of,
    takes_records,
    update_stream,
)
from sealbus.bus.ports import Request
from sealbus.bus.streams.declared import Guard, Stream
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.names import is_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """The stream that took records before the roll, and the stream that takes them now."""

    former: str
    current: str


async def in_period(streams: Sequence[Stream], request: Request) -> tuple[Stream, ...]:
    """Return the declared `streams`, with the audit stream under its current name. Raises `BusUnavailable`."""
    current = []
    for stream in streams:
        if stream.guard is Guard.EVIDENCE:
            state = await stream_state(request, stream.name)
            if state is None or not takes_records(state):
                names = await stream_names(request, RECORDS)
                if len(names) == 1:
                    stream = replace(stream, name=names[0])
        current.append(stream)
    return tuple(current)


async def roll(
    declared: Stream, to: str, request: Request, *, since: str | None = None, deadline: float = 30.0
) -> Rolled:
    """Close the stream that takes records, and create `to`, as `declared`, in its place; return both names.

    Run it under an operator's identity. If it was interrupted between the two steps, run it again with `since`, the name of
    the closed stream. Raises `ConfigurationError` for a name that is taken or invalid. If the server refuses to create the
    stream, the former stream takes records again, and `ConfigurationError` holds the server's reason. Raises
    `BusUnavailable` after `deadline` seconds.
    """
    if not is_token(to):
        raise ConfigurationError(f"{to[:255]!r} cannot be the name of a stream")
    try:
        async with asyncio.timeout(deadline):
            return await _roll(declared, to, request, since)
    except TimeoutError as error:
        raise BusUnavailable(f"not rolled: no answer from the server within {deadline:g} s") from error


async def _roll(declared: Stream, to: str, request: Request, since: str | None) -> Rolled:
    names = await stream_names(request, RECORDS)
    if names == [to]:
        raise ConfigurationError(f"stream {to} takes the records already")
    if await stream_state(request, to) is not None:
        raise ConfigurationError(f"stream {to} exists: the next period needs a new stream")
    if len(names) > 1 or (not names and since is None):
        raise ConfigurationError("no single stream takes the records: give the closed one with --from")
    if names and since is not None and names != [since]:
        raise ConfigurationError(f"stream {names[0]} takes the records, not {since}")
    former = await existing_stream(request, names[0] if names else str(since))
    if not names and closed_subject(former.name) not in subjects_of(former):
        raise ConfigurationError(f"stream {former.name} was not closed: it takes {', '.join(subjects_of(former))}")
    closed = {**former.config, "subjects": [closed_subject(former.name)]}
    await update_stream(request, closed)
    try:
        await create_stream(request, replace(declared, name=to).config())
    except ConfigurationError:
        await update_stream(request, closed | {"subjects": list(declared.subjects)})
        raise
    return Rolled(former=former.name, current=to)
