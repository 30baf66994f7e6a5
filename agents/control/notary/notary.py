"""`Notary`: one writer of one log. It waits for the lease, resumes the log, and follows the stream.

::

    standing by --lease---> resuming: tiles and stream against the last checkpoint --> following --> ...
         ^                              |                                                  |
         `------ lease lost, no broker -+--------------------------------------------------'
                                        `-- LogError: the log, the stream or a clock is wrong; the notary ends

Nothing is signed before it is announced in the lease, and nothing is published before it is stored durably.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

from sealbus.agents.control.notary.key_book import KeyBookWriter
from sealbus.agents.control.notary.lease import Lease, lease_subject
from sealbus.agents.control.notary.log.message_verifier import MessageVerifier
from sealbus.agents.control.notary.log.store import LogStore
from sealbus.agents.control.notary.policy_archive import PolicyArchive
from sealbus.agents.control.notary.publisher import RecordPublisher
from sealbus.agents.control.notary.resume import LogPlan, Taken, take_up
from sealbus.agents.control.notary.term import Term
from sealbus.agents.identity.threads import in_thread
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock, Identity, Transport
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import ConfigurationError, InfrastructureError, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.subjects import audit_subject
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.trust.names import Names

__all__ = ["Notary", "NotaryOptions"]

_log: Final = logging.getLogger(__name__)

_BACKOFF: Final = Backoff(initial_interval=0.2, maximum_interval=3.0)
_LONG: Final = 60.0
"""Seconds after which a term counts as a success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotaryOptions:
    """The log to keep, and its keys. `lease` is how many seconds to wait for a silent notary."""

    plan: LogPlan
    signers: tuple[NoteSigner, ...]
    lease: float = 10.0


class Notary:
    """A role of the control process. Identity, transport and outbox are already entered and outlive it."""

    def __init__(
        self,
        options: NotaryOptions,
        *,
        store: LogStore,
        identity: Identity,
        transport: Transport,
        outbox: Outbox,
        names: Names,
        policies: PolicyArchive | None = None,
        counters: Counters | None = None,
        clock: Clock = wall_clock,
    ) -> None:
        self._options = options
        self._store = store
        self._identity = identity
        self._transport = transport
        self._clock = clock
        self._counters = counters or Counters()
        self._counters.describe(
            {
                "sealbus_notary_entries_total": "Entries added to the log.",
                "sealbus_notary_checkpoints_total": "Checkpoints that were published.",
                "sealbus_notary_policies_total": "Policy bundles that were archived and recorded.",
            }
        )
        self._counters.add("sealbus_notary_entries_total", 0)
        self._policies = policies if policies is not None else PolicyArchive()
        self._profile = ArchiveProfile(names=names)
        token = names.token(identity.spiffe_id)
        self._subject = audit_subject(token)
        self._recording = RecordPublisher(
            outbox=outbox, subject=self._subject, identity=identity, clock=clock, stream=options.plan.stream
        )
        self._lease = Lease(
            KeyValue(transport),
            lease_subject(token, options.plan.origin),
            identity=identity,
            seconds=options.lease,
            clock=clock,
            waiting=self._stand_by,
        )
        self._key_book = KeyBookWriter(identity=identity, transport=transport, names=names, clock=clock)
        self._problem = "starting"
        self.serving = asyncio.Event()
        """Set while this notary holds the lease and follows the stream."""

    @property
    def problem(self) -> str:
        """The reason why nothing is added to the log now, in a few words; empty while the notary follows the stream."""
        return self._problem

    @property
    def note(self) -> str:
        """The reason why the archive may miss policies or the key book is not written, in a few words; empty if all is well.

        The log continues.
        """
        return "; ".join(filter(None, (self._policies.problem, self._key_book.problem)))

    async def run(self) -> None:
        """Keep the log until cancelled.

        Passing conditions (another notary, no broker, no identity, a full disk) are waited for. Raises `LogError` if tiles,
        stream or clock are wrong, and `ConfigurationError` for what an operator must fix: then nothing is added to the log.
        """
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._serve()
            except (LogError, ConfigurationError) as error:
                self._problem = str(error)
                _log.error("the notary stops, nothing is added to the log: %s", error)
                raise
            except InfrastructureError as error:
                if self._problem != str(error):
                    _log.warning("the notary waits: %s", error)
                self._problem = str(error)
            failures = failures + 1 if loop.time() - started < _LONG else 0
            await asyncio.sleep(_BACKOFF.interval(failures + 1))

    def _stand_by(self) -> None:
        self._problem = "standing by: another notary holds the lease"

    async def _serve(self) -> None:
        plan, store = self._options.plan, self._store
        changed = asyncio.Event()
        forget = self._identity.on_rotation(changed.set)
        try:
            # Inside the try: a cancellation that arrives meanwhile is raised only after the store is entered.
            await in_thread(store.enter)
            leased = await self._lease.acquire(store.place, above=await in_thread(store.fence))
            await in_thread(lambda: store.claim(self._lease.number))
            history = TrustHistory()
            verifier = MessageVerifier(
                profile=self._profile, own=self._identity.spiffe_id, history=history, sent=self._recording.sent
            )
            announced = None
            if leased is not None and leased.place != store.place and leased.size:
                # This store holds everything that was published from it.
                announced = Checkpoint(plan.origin, leased.size, leased.root)
            taken = await self._while_leased(
                take_up(
                    plan,
                    store,
                    self._transport,
                    identity=self._identity,
                    subject=self._subject,
                    verifier=verifier,
                    history=history,
                    policies=self._policies,
                    announced=announced,
                    fence=self._lease.number,
                )
            )
            await self._recording.bundles(history, taken.ledger.latest)
            term = Term(
                plan=plan,
                signers=self._options.signers,
                store=store,
                transport=self._transport,
                lease=self._lease,
                recording=self._recording,
                verifier=verifier,
                history=history,
                policies=self._policies,
                key_book=self._key_book,
                taken=taken,
                changed=changed,
                clock=self._clock,
                counters=self._counters,
            )
            self._problem = ""
            self.serving.set()
            await term.run()
        finally:
            self.serving.clear()
            forget()
            await in_thread(store.leave)

    async def _while_leased(self, work: Coroutine[None, None, Taken]) -> Taken:
        """Return the result of `work`, renewing the lease meanwhile: checking a long log outlasts it."""
        working, keeping = asyncio.ensure_future(work), asyncio.ensure_future(self._keep())
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, keeping):
                task.cancel()
            await asyncio.wait({working, keeping})
        if not keeping.cancelled() and (lost := keeping.exception()) is not None:
            if not working.cancelled():
                # Retrieve the error and drop it: the work went on without the lease.
                working.exception()
            raise lost
        return working.result()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._lease.due - asyncio.get_running_loop().time()))
            await self._lease.keep()
