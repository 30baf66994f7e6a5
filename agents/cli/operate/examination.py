"""The checks of `sealbus doctor` on each part of a deployment: what is wrong, and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from sealbus.agents.runtime.nats_monitor import read_page, read_varz
from sealbus.agents.runtime.open import open_connection, open_engine, open_identity, streams_of
from sealbus.agents.runtime.policy.source import open_source
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import existing_stream
from sealbus.bus.stream_names import TASKS
from sealbus.bus.streams.check import check_streams
from sealbus.bus.streams.durability import acknowledged_means, describe_sync
from sealbus.bus.streams.stored_answers import stores_answers
from sealbus.envelopes.errors import (
    BusUnavailable,
    ConfigurationError,
    IdentityUnavailable,
    PolicyUnavailable,
    SealbusError,
)
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.decision.engine import EngineStatus

LATE: Final = 0.25
"""Least share of an X.509-SVID's life that must be left: SPIRE renews at half, so less means that nothing renews it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of checking one part."""

    part: str
    ok: bool
    text: str


async def examine(
    settings: Settings,
    name: str,
    *,
    opa: str | None = None,
    nats_monitors: Sequence[str] = (),
    edges: Sequence[str] = (),
) -> list[Check]:
    """Check identity, NATS, streams and policy as the workload `name`.

    Optionally also check a running OPA (its URL), nats-servers (URLs of their monitoring ports), which should acknowledge
    only after writing to disk, and edges (URLs of their health ports), which note problems such as tokens without scopes.
    """
    settings = settings.for_command()
    # Side by side, because several of them wait for a connection to NATS where there is none.
    checks = await asyncio.gather(
        _check("identity", lambda: _identity(settings, name)),
        _check("trust", lambda: _trust(settings, name)),
        _check("nats", lambda: _nats(settings, name)),
        _check("answers", lambda: _answers(settings, name)),
        _check("clock", lambda: _clock(settings, name)),
        _check("context", lambda: _context(settings)),
        _check("policy", lambda: _policy(settings, name)),
    )
    checks += [await _check("disk", partial(_disk, monitor)) for monitor in nats_monitors]
    checks += [await _check("edge", partial(_edge, health)) for health in edges]
    if opa is not None:
        checks.append(await _check("opa", lambda: _opa(opa)))
    return checks


async def _check(part: str, look: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(part=part, ok=True, text=await look())
    except SealbusError as error:
        return Check(part=part, ok=False, text=error.detail or str(error.code))


async def _identity(settings: Settings, name: str) -> str:
    """Report the identity, and check that it is renewed in time."""
    async with open_identity(name, settings) as identity:
        now, own = wall_clock(), identity.x509()
        left, life = own.not_after - now, own.not_after - own.not_before
        if left < life * LATE:
            raise IdentityUnavailable(
                f"the X.509-SVID of {identity.spiffe_id} ends in {left // SECOND} s of {life // SECOND} and there is no "
                "newer one: look at the log of the SPIRE agent, and whether it reaches its server"
            )
        jwt = (identity.sealer().expires - now) // SECOND
        return f"{identity.spiffe_id}, X.509-SVID for {left // SECOND} s, JWT-SVID for {jwt} s"


async def _trust(settings: Settings, name: str) -> str:
    """Check that the X.509 trust bundle outlives the certificates that it vouches for."""
    from sealbus.agents.identity.x509_svid import authority_end

    async with open_identity(name, settings) as identity:
        now, own = wall_clock(), identity.x509()
        anchors = own.bundles.get(identity.spiffe_id.trust_domain, ())
        last = max((authority_end(anchor) for anchor in anchors), default=0)
        if last <= own.not_after:
            raise IdentityUnavailable(
                f"the trust bundle of {identity.spiffe_id.trust_domain} is stale: its last authority ends in "
                f"{max(0, last - now) // SECOND} s, before the X.509-SVID does; restart the SPIRE agent, or rotate the CA"
            )
        foreign = len(own.bundles) - 1
        federated = f", {foreign} foreign trust domains" if foreign else ""
        return f"{len(anchors)} authorities, the last one for {(last - now) // SECOND} s{federated}"


async def _clock(settings: Settings, name: str) -> str:
    """Check this host's clock against the broker's, whose stored times count in acceptance (SPEC.md section 7, step 5)."""
    async with open_connection(name, settings) as (_, connection):
        before = wall_clock()
        state = await existing_stream(connection.jetstream, TASKS)
        if not state.answered:
            raise BusUnavailable("the server does not report its time")
        ahead = (before + wall_clock()) // 2 - state.answered
        text = f"this host is {abs(ahead) / SECOND:.2f} s {'ahead of' if ahead > 0 else 'behind'} the broker"
        if abs(ahead) > DEFAULT_LIMITS.clock_skew:
            allowed = DEFAULT_LIMITS.clock_skew // SECOND
            raise ConfigurationError(f"{text}, {allowed} s are allowed: synchronize the clocks (NTP)")
        return text


async def _nats(settings: Settings, name: str) -> str:
    async with open_connection(name, settings) as (_, connection):
        states = await check_streams(streams_of(settings), connection.jetstream)
        return f"{connection.state}, {len(states)} streams as declared; {acknowledged_means(states)}"


async def _answers(settings: Settings, name: str) -> str:
    """Report whether the server stores its answers to this workload, as it does in the account with the streams."""
    async with open_connection(name, settings) as (identity, connection):
        token = settings.names.token(identity.spiffe_id)
        if not await stores_answers(connection, token):
            return "the server stores none of its answers to this workload"
        return (
            "the server stores its answers to this workload where a stream listens: it is in the account with the streams. "
            "Operators, control and backup belong there, and nobody else"
        )


async def _disk(monitor: str) -> str:
    return describe_sync(await read_varz(monitor))


async def _edge(health: str) -> str:
    """Check that an edge is ready and has no notes. Raises `ConfigurationError` with its reasons and notes otherwise."""
    page = await read_page(f"{health.rstrip('/')}/readyz", statuses=(200, 503))
    try:
        answer = json.loads(page)
        problems = [f"{part}: {text}" for key in ("reasons", "notes") for part, text in answer.get(key, {}).items()]
    except (ValueError, AttributeError) as error:
        raise BusUnavailable(f"{health}/readyz: the answer is not that of an edge") from error
    if problems:
        raise ConfigurationError("; ".join(problems))
    return "ready, and nothing is noted"


async def _context(settings: Settings) -> str:
    """Check that agents accept the user contexts that the edge mints, and report the lives of these."""
    from sealbus.agents.edge.edge import minting_limits

    minted, accepted = minting_limits(settings.edge, settings.lifetimes), settings.lifetimes
    return (
        f"minted for {minted.context_start_seconds} s to start and {minted.context_end_seconds} s to continue, "
        f"accepted for {accepted.context_start // SECOND} s and {accepted.context_life // SECOND} s"
    )


async def _policy(settings: Settings, name: str) -> str:
    if settings.policy.bucket is not None:
        return await _stored_policy(settings, name)
    status = await policy_status(settings, name)
    if status.missed or not status.revision:
        raise PolicyUnavailable(f"{status.engine}: {'; '.join(status.missed) or status.problem}")
    problem = status.problem or await _newest_of_dev(settings.dev.policy, status.revision)
    if problem:
        raise ConfigurationError(f"{status.engine}, revision {status.revision} stays in force: {problem}")
    return f"{status.engine}, revision {status.revision}"


async def _newest_of_dev(folder: Path | None, revision: str) -> str:
    """Return why the current policy folder of a running `sealbus dev` is not in force; empty if it is."""
    if folder is None:
        return ""
    try:
        newest = await asyncio.to_thread(build_bundle, folder)
    except ConfigurationError as error:
        return f"{folder} is refused as it is now: {error.detail}".replace("\n", "; ")
    return "" if newest.revision == revision else f"{folder} was changed but is not published: look at `sealbus dev`"


async def policy_status(settings: Settings, name: str) -> EngineStatus:
    """Return the status that the policy engine of the settings reports, asked as the workload `name`."""
    async with AsyncExitStack() as stack:
        # Only the central engine needs an identity: the others are checked even without a Workload API.
        central = settings.policy.engine == "central"
        identity = await stack.enter_async_context(open_identity(name, settings)) if central else None
        engine = await stack.enter_async_context(open_engine(settings.policy, identity))
        return await engine.status()


async def _stored_policy(settings: Settings, name: str) -> str:
    async with (
        open_connection(name, settings) as (identity, connection),
        open_source(name, settings.policy, connection) as source,
        open_engine(settings.policy, identity, source.in_force) as engine,
    ):
        status = await engine.status()
        problem = "; ".join(text for text in (source.problem(), status.problem) if text).replace("\n", "; ")
    # Raised outside, because the task groups inside would wrap the error in an exception group.
    if problem:
        raise ConfigurationError(f"{status.engine}, revision {status.revision} stays in force: {problem}")
    return f"{status.engine}, revision {status.revision} from bucket {settings.policy.bucket}"


async def _opa(url: str) -> str:
    from sealbus.policies.opa.admin import OpaAdmin

    status = await OpaAdmin(url).status()
    if not status.healthy:
        raise PolicyUnavailable(f"OPA at {url} is not healthy, or does not answer")
    if status.problems:
        raise ConfigurationError(
            f"OPA at {url}: revisions {dict(status.revisions)} stay in force: {dict(status.problems)}"
        )
    return f"healthy {status.healthy}, revisions {dict(status.revisions)}"
