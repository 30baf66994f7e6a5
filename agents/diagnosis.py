"""Looks at each part that a workload needs, one after the other, and says in one line what was found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sealbus.agents.runtime import open_connection, open_engine, streams_of, workload_api_of
from sealbus.agents.settings import Settings
from sealbus.bus.clock import wall_clock
from sealbus.bus.stream_check import check_streams
from sealbus.envelopes.errors import PolicyUnavailable, SealbusError
from sealbus.envelopes.limits import SECOND

__all__ = ["Check", "examine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found about one part."""

    part: str
    ok: bool
    text: str


async def examine(settings: Settings, name: str, *, opa: str | None = None) -> list[Check]:
    """Check identity, NATS and streams as the workload `name`, and the policy; and a running OPA by its URL."""
    checks = [
        await _check("identity", lambda: _identity(settings, name)),
        await _check("nats", lambda: _nats(settings, name)),
        await _check("policy", lambda: _policy(settings)),
    ]
    if opa is not None:
        checks.append(await _check("opa", lambda: _opa(opa)))
    return checks


async def _check(part: str, look: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(part=part, ok=True, text=await look())
    except SealbusError as error:
        return Check(part=part, ok=False, text=error.detail or str(error.code))


async def _identity(settings: Settings, name: str) -> str:
    from sealbus.agents.identity import WorkloadIdentity

    async with WorkloadIdentity.connect(workload_api_of(settings, name)) as identity:
        now = wall_clock()
        left = (identity.x509().not_after - now) // SECOND
        return f"{identity.spiffe_id}, X.509-SVID for {left} s, JWT-SVID for {(identity.sealer().expires - now) // SECOND} s"


async def _nats(settings: Settings, name: str) -> str:
    async with open_connection(name, settings) as (_, connection):
        states = await check_streams(streams_of(settings), connection.jetstream)
        return f"{connection.state}, {len(states)} streams as declared"


async def _policy(settings: Settings) -> str:
    async with open_engine(settings.policy) as engine:
        status = await engine.status()
        return f"{status.engine}, revision {status.revision}{f', {status.problem}' if status.problem else ''}"


async def _opa(url: str) -> str:
    from sealbus.policies.opa_admin import OpaAdmin

    status = await OpaAdmin(url).status()
    if not status.healthy:
        raise PolicyUnavailable(f"OPA at {url} is not healthy, or does not answer")
    return f"healthy {status.healthy}, revisions {dict(status.revisions)}"
