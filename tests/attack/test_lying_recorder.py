"""A recorder that lies, and a log with garbage in it, against a backtest: found, counted, and nothing else is lost for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from support.engines import ScriptedEngine
from support.shop import Shop, Update

from sealbus.agents.cli.policy.backtest_run import BacktestResult, run_backtest
from sealbus.bus.audit.trail import AuditTrail
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.policies.backtest.recorded import Change
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.testing import TestBus

REVISION = build_bundle(STARTER).revision


def lie(document: Mapping[str, Any]) -> Decision:
    """Allow whoever asks, and say that the policy in force did."""
    del document
    return Decision(
        allow=True, reasons=(), obligations=(), policy="starter", revision=REVISION, engine="embedded", micros=9
    )


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    """Return a bus whose inventory allows what the starter policy denies: it is not mallory's item."""
    async with TestBus(Shop().inventory, engine=ScriptedEngine(lie)) as running:
        client = await running.client("shop-web")
        for _ in range(3):
            await client.submit("inventory.update", Update(item_id="42"), user=running.user("mallory", "shop-web"))
        await running.idle()
        yield running


async def asked(bus: TestBus, *, policy: Path | None = None, bundles: Path | None = None) -> BacktestResult:
    trail = AuditTrail(
        transport=bus.broker.connect(),
        profile=ArchiveProfile(names=bus.names, minters=bus.deployment.minters),
        bundles=bus.edge.bundles,
    )
    async with aclosing(trail.entries()) as entries:
        return await run_backtest(entries, policy=policy, bundles=bundles, opa=None, limits=())


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    (tmp_path / "starter.tar.gz").write_bytes(build_bundle(STARTER).raw)
    return tmp_path


async def test_who_handles_what_the_policy_denies_is_found_by_its_own_records(bus: TestBus, bundles: Path) -> None:
    found = await asked(bus, bundles=bundles)
    assert found.findings == 0
    assert found.report.changes == {Change.ALLOW_TO_DENY: 3}
    assert found.exit_code == 4


async def test_records_that_were_changed_are_findings_and_not_asked_about(
    bus: TestBus, bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = bus.broker.streams["AUDIT"]
    genuine = next(one for one in stream.stored if b"mallory" in one.payload)
    # Whoever can write to the stream's storage makes mallory's request look like alice's, who may.
    changed = genuine.payload.replace(b'"id":"mallory"', b'"id":"alice42"')
    stream.tamper(genuine._replace(payload=changed))
    garbage = (b"", b"\x80", b"\x97\x01" + b"\xff" * 200, changed[:-9], b"x" * 900_000)
    for payload in garbage:
        bus.broker.inject("audit.inventory", payload)
    before = await asked(bus, policy=STARTER)
    assert before.findings == len(garbage) + 1
    assert before.exit_code == 4
    assert "DOES NOT VERIFY" in capsys.readouterr().err
    own = await asked(bus, bundles=bundles)
    # Those of the changed message are lost to the question; the others are found as before.
    assert own.report.read == before.report.read < 4
    assert own.report.changes[Change.ALLOW_TO_DENY] == own.report.read
