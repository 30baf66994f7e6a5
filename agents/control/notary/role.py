"""Opens a notary from the settings: its keys, folder, identity, connection and policy archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager

from sealbus.agents.control.notary.cosigning import load_policy
from sealbus.agents.control.notary.keys import load_signers, previous_checkpoint
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.policy_archive import PolicyArchive, follow_policy
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.control.notary.volume import watch_volume
from sealbus.agents.runtime.open import open_connection
from sealbus.agents.runtime.settings.schema import NotaryTable
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError

NAME = "notary"
"""Name of the workload, if the settings give each a Workload API of its own."""


def notary_options(table: NotaryTable) -> NotaryOptions:
    """Return the options of the log in the settings. Raises `ConfigurationError` for a missing or unreadable setting."""
    if table.origin is None:
        raise ConfigurationError(
            "control.notary.origin is not set: the name of the log, for instance log.example.org/audit"
        )
    signers = load_signers(table.keys, table.origin)
    previous = previous_checkpoint(table.previous) if table.previous is not None else b""
    plan = LogPlan(
        origin=table.origin,
        verifiers=tuple(signer.verifier for signer in signers),
        stream=table.stream,
        previous=previous,
        whole=table.whole,
    )
    witnesses = load_policy(table.witnesses, plan.origin, plan.verifiers) if table.witnesses is not None else None
    return NotaryOptions(plan=plan, signers=signers, lease=table.lease, witnesses=witnesses)


@asynccontextmanager
async def open_notary(
    settings: Settings, *, counters: Counters | None = None, name: str = NAME
) -> AsyncGenerator[Notary, None]:
    """Open the notary that `control.notary` describes, ready to `run`; raise `ConfigurationError` for a missing setting."""
    table = settings.control.notary
    options = notary_options(table)
    if table.folder is None:
        raise ConfigurationError("control.notary.folder is not set: it names where the log is kept")
    counters, policies = counters or Counters(), PolicyArchive()
    async with (
        open_connection(name, settings, counters=counters) as (identity, connection),
        Outbox(identity=identity, transport=(transport := NatsTransport(connection))) as outbox,
        _in_background(follow_policy(name, settings.policy, connection, policies, counters=counters), "policy-archive"),
        _in_background(watch_volume(table.folder, counters), "log-volume"),
    ):
        site = NotarySite(
            identity=identity, transport=transport, outbox=outbox, names=settings.names, counters=counters
        )
        yield Notary(options, site, store=FolderStore(table.folder), policies=policies)


@asynccontextmanager
async def _in_background(work: Coroutine[None, None, None], name: str) -> AsyncGenerator[None, None]:
    """Run `work` while entered. A task group would wrap the error that ends the notary in an exception group."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
