"""Find the policies that made recorded decisions, by revision, and the policy in force."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from sealbus.agents.console.documents import PartRow
from sealbus.agents.evidence.decisions import POLICIES
from sealbus.agents.runtime.policy.history import former_policy
from sealbus.agents.runtime.policy.push import stored_parts
from sealbus.agents.runtime.policy.source import anchors_of
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.inspection.documents import part_documents
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.backtest.recorded import RecordedDecision
from sealbus.policies.bundle.files import load_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.approval import is_question
from sealbus.policies.decision.request import completed_document
from sealbus.policies.engines.open import open_policy
from sealbus.policies.explain.explanation import ExplainedDecision, Explainer, NotExplained


@dataclass(frozen=True, slots=True, kw_only=True)
class ReexaminedDecision:
    """How a recorded decision came about, the policy that made it, and the decision of the policy in force."""

    explained: ExplainedDecision | NotExplained
    bundle: Bundle | None
    again: ExplainedDecision | NotExplained | None


class DecidingPolicies:
    """Finds policies in the notary's archive, the store, or the policy file, by the settings. Use with `async with`."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        # An interpreter may be used and dropped only in the thread that made it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="console-explain")
        self._explainer: Explainer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown(wait=False)

    def _drop(self) -> None:
        self._explainer = None

    async def reexamined(self, recorded: RecordedDecision) -> ReexaminedDecision:
        """Explain `recorded`, and ask the policy in force about the same document."""
        bundles = await self.of_revision(recorded.revision)
        current = await self.in_force()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._reexamine, recorded, bundles, current)

    def _reexamine(
        self, recorded: RecordedDecision, bundles: Sequence[Bundle], current: Bundle | None
    ) -> ReexaminedDecision:
        explainer = self._explainer = self._explainer or Explainer()
        explained = explainer.explain_recorded(recorded, bundles)
        again = None
        document = recorded.question()
        if current is not None and isinstance(document, bytes):
            completed = completed_document(document)
            again = explainer.explain(current, completed, of_approval=is_question(completed))
        return ReexaminedDecision(explained=explained, bundle=bundles[0] if bundles else None, again=again)

    async def of_revision(self, revision: str) -> Sequence[Bundle]:
        """Return the available policies of `revision`; there may be none."""
        if not revision:
            return ()
        folder = self._settings.control.notary.folder
        if folder is not None and (folder / POLICIES).is_dir():
            bundles = await self._archived(folder / POLICIES, revision)
            if bundles:
                return bundles
        policy = self._settings.policy
        if policy.bucket is not None and policy.keys:
            former = await former_policy(PolicyStore(self._connection, policy.bucket), await self._anchors(), revision)
            return () if former is None else (former,)
        current = await self.in_force()
        return (current,) if current is not None and current.revision == revision else ()

    async def in_force(self) -> Bundle | None:
        """Return the policy in force, from the store or the file; None if there is no policy here, or it is refused."""
        policy = self._settings.policy
        try:
            if policy.bucket is not None and policy.keys:
                store = PolicyStore(self._connection, policy.bucket)
                parts, _ = await stored_parts(store, await self._anchors())
                return parts.composed
            return await asyncio.to_thread(load_bundle, policy.file) if policy.file is not None else None
        except ConfigurationError:
            return None

    async def parts(self) -> list[PartRow]:
        """Return the parts of the policy in the store, or the policy file as its only part."""
        policy = self._settings.policy
        if policy.bucket is None or not policy.keys:
            current = await self.in_force()
            if current is None and policy.file is None:
                return []
            revision, problem = (current.revision, "") if current is not None else ("", f"{policy.file} is refused")
            return [{"part": "file", "serial": None, "revision": revision, "key": "", "kept": 0, "problem": problem}]
        store = PolicyStore(self._connection, policy.bucket)
        composed, stored = await stored_parts(store, await self._anchors())
        kept = {name: await store.serials(name) for name in sorted(stored)}
        return [cast("PartRow", {**part, "kept": len(part["kept"])}) for part in part_documents(composed, kept)]

    async def _anchors(self) -> Mapping[str, PublicKey]:
        return await asyncio.to_thread(anchors_of, self._settings.policy)

    async def _archived(self, folder: Path, revision: str) -> Sequence[Bundle]:
        async with ArchivedPolicies(folder, open_engine=open_policy) as archived:
            bundles = []
            for file in archived.files(revision):
                try:
                    bundles.append(await asyncio.to_thread(load_bundle, file))
                except ConfigurationError:
                    # A bundle that was once in force may be refused today. It explains nothing then.
                    continue
            return bundles
