"""The central engine as settings open it: a workload's own SVIDs from a Workload API, and real OPAs that know it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.central_opa import SYSTEM
from support.opa import require_opa
from support.policies import bundle, document
from support.ports import held_port
from support.settings import changed, load
from support.workload_api import Rotations, RunningWorkloadApi, short_folder, workload_api

from sealbus import Client
from sealbus.agents.cli.operate.examination import examine, policy_status
from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.examples import pricing
from sealbus.agents.runtime.open import open_audit_trail, open_engine, open_identity, open_node
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.opa.process import MutualTls, OpaProcess

pytestmark = [pytest.mark.opa, pytest.mark.workload_api]

OPA = SpiffeId("spiffe://example.org/opa")
LIFE = 12
"""Seconds of an X.509-SVID; it is replaced after half of them."""
ROTATIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    api: RunningWorkloadApi
    folder: Path
    stack: AsyncExitStack

    async def opa(self, name: str) -> str:
        """Start an OPA with an SVID from the same authority, and return its URL."""
        home = self.folder / name
        files = write_server_svid(home, self.api.authority, OPA)
        tls = MutualTls(
            address=f"127.0.0.1:{held_port()}",
            certificate=files.certificate,
            key=files.key,
            trust_bundle=files.bundle,
            system=SYSTEM,
        )
        (home / "bundle").mkdir()
        file = home / "bundle" / "bundle.tar.gz"
        write_bundle(bundle(), file)
        await self.stack.enter_async_context(
            OpaProcess(require_opa(), socket=home / "run" / "opa.sock", bundle=file, tls=tls)
        )
        return f"https://{tls.address}"

    def settings(self, *urls: str, name: str = "pricing") -> Settings:
        policy = changed(PolicyTable(engine="central", opa=urls, deadline=60.0), opa_ids=(OPA,))
        return changed(
            load(self.folder),
            policy=policy,
            workload_api=self.api.address(name),
        )


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with workload_api("pricing", "stranger", x509_ttl=LIFE) as api, AsyncExitStack() as stack:
        with short_folder() as folder:
            yield Site(api=api, folder=folder, stack=stack)
            await stack.aclose()


async def test_doctor_tells_the_revision_and_names_an_opa_that_is_missed(site: Site) -> None:
    first, gone = await site.opa("a"), f"https://127.0.0.1:{held_port()}"
    (found,) = [one for one in await examine(site.settings(first), "pricing") if one.part == "policy"]
    assert (found.ok, found.text) == (True, "central, revision r1")
    (found,) = [one for one in await examine(site.settings(first, gone), "pricing") if one.part == "policy"]
    assert (found.ok, found.text) == (False, f"central: OPA at {gone} does not answer: ClientConnectorError")


async def test_doctor_says_that_opa_does_not_know_the_workload(site: Site) -> None:
    url = await site.opa("a")
    status = await policy_status(site.settings(url, name="stranger"), "stranger")
    assert status.revision == ""
    assert status.problem == f"{url}: OPA answered with status 401: it does not let this workload ask"


async def test_svids_rotate_and_no_decision_is_missed(site: Site) -> None:
    settings = site.settings(await site.opa("a"))
    async with open_identity("pricing", settings) as identity, open_engine(settings.policy, identity) as engine:
        rotations = Rotations(identity)
        serials: set[bytes] = set()
        decided = 0
        async with asyncio.timeout(60):
            while rotations.count < ROTATIONS:
                answers = await engine.decide([document()] * 60)
                assert all(isinstance(one, Decision) and one.allow for one in answers), answers
                decided += len(answers)
                serials.add(identity.x509().chain[0])
        rotations.end()
    assert len(serials) > ROTATIONS - 1
    assert decided >= 60 * ROTATIONS


@pytest.mark.nats
async def test_a_call_is_decided_elsewhere_and_the_records_say_so() -> None:
    """Caller and answerer both ask, for a reply is decided, too."""
    with short_folder() as folder:
        options = DevOptions(folder=folder / "dev", agents=("shop-web", "pricing"), port=-1, max_bytes=1 << 26)
        async with open_environment(options) as running:
            files = write_server_svid(folder / "opa", running.authority, OPA)
            tls = MutualTls(
                address=f"127.0.0.1:{held_port()}",
                certificate=files.certificate,
                key=files.key,
                trust_bundle=files.bundle,
                system=SYSTEM,
            )
            opa = OpaProcess(require_opa(), socket=folder / "run" / "opa.sock", bundle=running.bundle, tls=tls)
            url = (f"https://{tls.address}",)
            policy = changed(PolicyTable(engine="central", opa=url, deadline=60.0), opa_ids=(OPA,))
            settings = changed(running.settings, policy=policy)
            async with opa, asyncio.timeout(60):
                assert await engines_of_a_call(settings) == {"central"}
                assert await engines_of_a_call(running.settings) == {"central", "embedded"}


async def engines_of_a_call(settings: Settings) -> set[str | None]:
    """Ask a price with everything open as `settings` say, and return the engines of all decisions on record."""
    stop = asyncio.Event()
    async with (
        open_node("pricing", settings) as answering,
        open_node("shop-web", settings) as asking,
        Worker(pricing.agent, answering) as worker,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        found = await Client.on(asking).call("pricing.quote", pricing.Quote(item_id="42"), returns=pricing.Price)
        assert found.item_id == "42"
        stop.set()
    async with open_audit_trail("operator", settings) as trail, aclosing(trail.entries()) as entries:
        records = [entry.record async for entry in entries if isinstance(entry, AuditEntry)]
    return {record.engine for record in records if isinstance(record, DecisionRecord)}
