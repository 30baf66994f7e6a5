"""The notary: the writer of one log. It waits for the lease, resumes the log, and follows the stream.

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

from sealbus.agents.control.notary.cosigning import Cosigning
from sealbus.agents.control.notary.key_book import KeyBookWriter
from sealbus.agents.control.notary.lease import Lease, lease_subject
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.policy_archive import PolicyArchive
from sealbus.agents.control.notary.publisher import NotarySite, RecordPublisher
from sealbus.agents.control.notary.resume import LogPlan, ResumedLog, resume_log
from sealbus.agents.control.notary.term import NotaryParts, Term
from sealbus.agents.identity.threads import in_thread
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import ConfigurationError, InfrastructureError, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.witness_policy import WitnessPolicy

_logger: Final = logging.getLogger(__name__)

_BACKOFF: Final = Backoff(initial_interval=0.2, maximum_interval=3.0)
_LONG: Final = 60.0
"""Seconds after which a term counts as a success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotaryOptions:
    """The log to keep, and its keys. `lease` is how many seconds to wait for a silent notary.

    `witnesses` are asked to cosign each checkpoint.
    """

    plan: LogPlan
    signers: tuple[NoteSigner, ...]
    lease: float = 10.0
    witnesses: WitnessPolicy | None = None


class Notary:
    """A role of the control process: it keeps the log of `options` in `store`, from the connection of `site`."""

    def __init__(
        self, options: NotaryOptions, site: NotarySite, *, store: FolderStore, policies: PolicyArchive | None = None
    ) -> None:
        self._site = site
        site.counters.describe(
            {
                "sealbus_notary_entries_total": "Entries added to the log.",
                "sealbus_notary_checkpoints_total": "Checkpoints that were published.",
                "sealbus_notary_policies_total": "Policy bundles that were archived and recorded.",
            }
        )
        site.counters.add("sealbus_notary_entries_total", 0)
        if options.witnesses is None:
            # No quorum is asked for.
            site.counters.gauge("sealbus_notary_without_quorum_seconds", float)
        self._parts = NotaryParts(
            plan=options.plan,
            signers=options.signers,
            site=site,
            store=store,
            lease=Lease(
                KeyValue(site.transport),
                lease_subject(site.token, options.plan.origin),
                identity=site.identity,
                seconds=options.lease,
                clock=site.clock,
                waiting=self._stand_by,
            ),
            publisher=RecordPublisher(site, stream=options.plan.stream),
            policies=policies if policies is not None else PolicyArchive(),
            key_book=KeyBookWriter(
                identity=site.identity,
                transport=site.transport,
                names=site.names,
                clock=site.clock,
                stream=options.plan.stream,
            ),
            cosigning=(
                Cosigning(options.witnesses, counters=site.counters, get=store.get)
                if options.witnesses is not None
                else None
            ),
        )
        self._problem = "starting"
        self.serving = asyncio.Event()
        """Set while this notary holds the lease and follows the stream."""

    @property
    def problem(self) -> str:
        """Why nothing is added to the log now, in a few words; empty while the notary follows the stream."""
        return self._problem

    @property
    def note(self) -> str:
        """Why the archive may lack policies, the key book is not written or witnesses do not cosign; empty if all is well.

        The log continues meanwhile.
        """
        parts = self._parts
        witnesses = parts.cosigning.problem if parts.cosigning is not None else ""
        return "; ".join(filter(None, (parts.policies.problem, parts.key_book.problem, witnesses)))

    async def run(self) -> None:
        """Keep the log until cancelled.

        Passing conditions (another notary, no broker, no identity, a full disk) end by themselves, and are waited out. Raises
        `LogError` if tiles, stream or clock are wrong, and `ConfigurationError` for a fault that an operator must fix; then
        nothing more is added to the log.
        """
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._serve()
            except (LogError, ConfigurationError) as error:
                self._problem = str(error)
                _logger.error("the notary stops, nothing is added to the log: %s", error)  # noqa: TRY400  the error is raised
                raise
            except InfrastructureError as error:
                if self._problem != str(error):
                    _logger.warning("the notary waits: %s", error)
                self._problem = str(error)
            failures = failures + 1 if loop.time() - started < _LONG else 0
            await asyncio.sleep(_BACKOFF.interval(failures + 1))

    def _stand_by(self) -> None:
        self._problem = "standing by: another notary holds the lease"

    async def _serve(self) -> None:
        parts, store = self._parts, self._parts.store
        changed = asyncio.Event()
        forget = self._site.identity.on_rotation(changed.set)
        try:
            # Inside the try, because a cancellation during `enter` is raised only once the store is entered.
            await in_thread(store.enter)
            log = await self._resumed()
            await parts.publisher.publish_new_bundles(log.history, log.ledger.latest)
            term = Term(parts, log, changed)
            self._problem = ""
            self.serving.set()
            await term.follow()
        finally:
            self.serving.clear()
            forget()
            await in_thread(store.leave)

    async def _resumed(self) -> ResumedLog:
        """Wait for the lease, and return the log that is continued under it."""
        plan, store, lease = self._parts.plan, self._parts.store, self._parts.lease
        leased = await lease.acquire(store.place, above=await in_thread(store.fence))
        await in_thread(lambda: store.claim(lease.number))
        announced = None
        if leased is not None and leased.place != store.place and leased.size:
            # Only for another store: ours holds every checkpoint that was published from it.
            announced = Checkpoint(plan.origin, leased.size, leased.root)
        sent = self._parts.publisher.sent
        log = await self._while_leased(
            resume_log(plan, self._site, store, sent=sent, announced=announced, fence=lease.number)
        )
        self._parts.policies.recall(log.policies)
        for record in log.recorded:
            self._parts.policies.note_recorded(record)
        return log

    async def _while_leased(self, work: Coroutine[None, None, ResumedLog]) -> ResumedLog:
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
                # The error is retrieved and dropped, because the work continued without the lease.
                working.exception()
            raise lost
        return working.result()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._parts.lease.due - asyncio.get_running_loop().time()))
            await self._parts.lease.keep()
