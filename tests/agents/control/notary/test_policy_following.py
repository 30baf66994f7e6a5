"""The notary's archive follows the deployment's policy: the bucket, the file, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from support.lab import running, until
from support.policies import bundle, document, signing_key
from support.policy_bus import pushed
from support.teams import signed_platform

from sealbus.agents.control.notary.policy_archive import NONE, PolicyArchive, follow_policy, policy_record
from sealbus.agents.runtime.policy.deny_list import Denial, add
from sealbus.agents.runtime.policy.push import content_of, push_content, push_denial
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.trust.keys import key_id, public_pem
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.bundle.files import STARTER, write_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.engines.open import open_policy

ROOT = signing_key()
NOWHERE = cast("Connection", object())


def settings(**changes: object) -> PolicyTable:
    values: dict[str, object] = {"engine": "embedded", "bundle": None, "opa": (), "deadline": 1.0, **changes}
    return PolicyTable(**values)  # type: ignore[arg-type]


@asynccontextmanager
async def following(policy: PolicyTable, connection: Connection = NOWHERE) -> AsyncIterator[PolicyArchive]:
    archive = PolicyArchive()
    task = asyncio.create_task(follow_policy("notary", policy, connection, archive, counters=Counters()))
    try:
        yield archive
    finally:
        task.cancel()
        await asyncio.wait({task})


def next_revision(archive: PolicyArchive) -> str:
    """Return the newest revision that was offered."""
    offered: list[Bundle] = list(archive._offered.values())
    return offered[-1].revision if offered else ""


async def test_without_a_policy_there_is_nothing_to_archive_which_is_said() -> None:
    archive = PolicyArchive()
    await follow_policy("notary", settings(), NOWHERE, archive, counters=Counters())
    assert archive.problem == NONE


@pytest.mark.slow
async def test_the_file_whenever_it_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    async with following(settings(bundle=str(file))) as archive:
        await until(lambda: "cannot be read" in archive.problem)
        write_bundle(bundle(revision="one"), file)
        await until(lambda: next_revision(archive) == "one")
        assert archive.problem == ""
        file.write_bytes(b"no bundle")
        await until(lambda: "the newest policy is not archived" in archive.problem)
        write_bundle(bundle(revision="two"), file)
        await until(lambda: next_revision(archive) == "two")
        assert archive.problem == ""


@pytest.mark.nats
async def test_the_bucket_and_what_was_in_it(tmp_path: Path) -> None:
    key = tmp_path / "root.pub"
    key.write_text(public_pem(ROOT.public))
    policy = settings(bundle="nats://policies", cache=tmp_path / "cache", keys=(key,))
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        async with following(policy, connection) as archive:
            await until(lambda: "nothing was pushed yet" in archive.problem)
            await pushed(store, "platform", signed_platform(ROOT, {}, serial=1), 1)
            await until(lambda: next_revision(archive).endswith(".platform-1"))
            await pushed(store, "platform", signed_platform(ROOT, {}, serial=2), 2)
            await until(lambda: next_revision(archive).endswith(".platform-2"))
            first = next(iter(archive._offered.values())).revision
        # Who comes later, with nothing, is led to the former one by a decision that names it.
        async with following(policy, connection) as archive:
            await until(lambda: next_revision(archive).endswith(".platform-2"))
            archive.note_revisions([first, "never was"])
            await until(lambda: next_revision(archive) == first)
            await until(lambda: "never was" in archive._given_up)


@pytest.mark.nats
async def test_a_denial_by_itself_is_archived_with_its_policy(tmp_path: Path) -> None:
    """So that whoever makes decisions again finds an allow of that revision which ignored the denial."""
    key = tmp_path / "root.pub"
    key.write_text(public_pem(ROOT.public))
    policy = settings(bundle="nats://policies", cache=tmp_path / "cache", keys=(key,))
    (tmp_path / "archive").mkdir()
    question = document("pricing.quote")
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
        store = PolicyStore(connection, "policies")
        await store.create()
        anchors = {key_id(ROOT.public): ROOT.public}
        await push_content(store, anchors, "platform", content_of(STARTER), ROOT)
        async with following(policy, connection) as archive:
            await until(lambda: next_revision(archive).endswith(".platform-1"))
            planner = Denial(kind="workload", id="spiffe://example.org/agent/planner")
            await push_denial(store, anchors, add(planner), ROOT)
            await until(lambda: next_revision(archive).endswith(".platform-2"))
            revisions = []
            while (offered := archive.next_offered()) is not None:
                record = policy_record(offered)
                file = tmp_path / "archive" / f"{record.digest.hex()}.tar.gz"
                file.write_bytes(offered.raw)
                assert record.size == len(offered.raw)
                archive.note_kept(record.digest)
                archive.note_recorded(record)
                revisions.append(record.revision)
    async with ArchivedPolicies(tmp_path / "archive", open_engine=open_policy) as archived:
        allowed = []
        for revision in revisions:
            engine = await archived.engine(revision)
            assert engine is not None
            [answer] = await engine.decide([question])
            assert isinstance(answer, Decision)
            assert answer.revision == revision
            allowed.append((answer.allow, answer.reasons))
    assert allowed == [(True, ()), (False, ("revoked_agent",))]
