"""`sealbus doctor`'s checks: each part on its own, one line each, and none hides another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import pytest
from support.native_wheel import require_wheel
from support.settings import FULL, changed, load
from support.x509 import ThrowawayCa

from sealbus.agents.cli.operate import examination as diagnosis
from sealbus.agents.cli.operate.examination import Check, examine
from sealbus.agents.runtime.health import HealthServer, Probes
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.agents.runtime.settings.schema import PolicyTable
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.clocks import wall_clock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle
from sealbus.policies.decision.engine import EngineStatus


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose policy is there, and nothing else."""
    write_bundle(build_bundle(STARTER), tmp_path / "bundle.tar.gz")
    return changed(
        load(tmp_path, FULL),
        policy=PolicyTable(engine="embedded", bundle=str(tmp_path / "bundle.tar.gz"), opa=(), deadline=1.0),
        workload_api=f"unix://{tmp_path / 'agent.sock'}",
    )


async def test_each_part_is_looked_at_whatever_the_others_are(settings: Settings) -> None:
    checks = await examine(settings, "pricing")
    assert [(one.part, one.ok) for one in checks] == [
        ("identity", False),
        ("trust", False),
        ("nats", False),
        ("answers", False),
        ("clock", False),
        ("context", True),
        ("policy", True),
    ]
    assert checks[5].text == "minted for 600 s to start and 3600 s to go on, taken for 1800 s and 7200 s"
    assert "embedded, revision " in checks[6].text
    for one in checks:
        assert one.text
        assert "\n" not in one.text


async def test_an_edge_that_mints_for_longer_than_agents_take_is_told(settings: Settings) -> None:
    edge = settings.edge.model_copy(update={"context_life": 7_201})
    found = (await examine(changed(settings, edge=edge), "pricing"))[5]
    assert (found.part, found.ok) == ("context", False)
    assert "edge.context_life is 7201 s, but readers accept 7200 s (context.life)" in found.text


async def test_a_policy_that_is_not_there_says_which_file(settings: Settings) -> None:
    missing = changed(settings.policy, bundle="/nowhere/bundle.tar.gz")
    *_, found = await examine(changed(settings, policy=missing), "pricing")
    assert (found.part, found.ok) == ("policy", False)
    assert "/nowhere/bundle.tar.gz" in found.text


async def test_the_native_engine_is_named_where_it_decides(settings: Settings) -> None:
    require_wheel()
    *_, found = await examine(changed(settings, policy=changed(settings.policy, engine="native")), "pricing")
    assert (found.part, found.ok) == ("policy", True)
    assert found.text.startswith("native, revision ")


async def test_a_policy_whose_newest_state_dev_refuses_is_not_fine(settings: Settings, tmp_path: Path) -> None:
    """What is in force is an older one, and only the terminal of `sealbus dev` said so."""
    folder = tmp_path / "policy"
    copytree(STARTER, folder)
    in_dev = changed(settings, dev=changed(settings.dev, policy=folder))

    async def found() -> Check:
        return (await examine(in_dev, "pricing"))[-1]

    assert (await found()).ok
    module = next(file for file in sorted(folder.rglob("*.rego")) if not file.name.endswith("_test.rego"))
    module.write_text(module.read_text() + "\n# a change\n")
    edited = await found()
    assert not edited.ok
    assert f"stays in force: {folder} was changed but is not published" in edited.text
    (folder / "extra.rego").write_text("package extra\n\nx :=\n")
    refused = await found()
    assert not refused.ok
    assert "stays in force" in refused.text
    assert "extra.rego" in refused.text
    assert "\n" not in refused.text


async def test_a_policy_beside_which_a_newer_one_was_refused_is_not_fine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def status(*_: object) -> EngineStatus:
        return EngineStatus(engine="sidecar", revision="7", problem="bundle 8: rego_parse_error")

    monkeypatch.setattr(diagnosis, "policy_status", status)
    found = (await examine(settings, "pricing"))[-1]
    assert found == Check(
        part="policy", ok=False, text="sidecar, revision 7 stays in force: bundle 8: rego_parse_error"
    )


async def test_a_running_opa_is_asked_only_where_it_is_named(settings: Settings) -> None:
    *_, found = await examine(settings, "pricing", opa="http://127.0.0.1:1")
    assert (found.part, found.ok) == ("opa", False)


@asynccontextmanager
async def an_edge(notes: dict[str, str], *, ready: bool = True) -> AsyncIterator[str]:
    """Serve the health port of an edge that has these notes; yield its URL."""
    probes = Probes(healthy=dict, ready=lambda: {} if ready else {"nats": "not connected"}, notes=lambda: notes)
    async with LoopWatch() as watch, HealthServer("0", probes=probes, counters=Counters(), watch=watch) as server:
        yield f"http://127.0.0.1:{server.port}"


async def test_an_edge_whose_issuers_tokens_carry_no_scopes_is_told(settings: Settings) -> None:
    text = "the tokens of https://idp.example.org carry no scopes in the claim scope"
    async with an_edge({"scopes": text}) as noted, an_edge({}) as fine, an_edge({}, ready=False) as away:
        found = (await examine(settings, "pricing", edges=[noted, fine, away, "http://127.0.0.1:1"]))[-4:]
    assert [(one.part, one.ok) for one in found] == [("edge", False), ("edge", True), ("edge", False), ("edge", False)]
    assert found[0].text == f"scopes: {text}"
    assert found[2].text == "nats: not connected"


@pytest.mark.parametrize("answer", [b"[]", b"{", b'{"notes": 1}'])
async def test_what_is_no_edge_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    async def page(*_: object, **__: object) -> bytes:
        return answer

    monkeypatch.setattr(diagnosis, "read_page", page)
    *_, found = await examine(settings, "pricing", edges=["http://127.0.0.1:1"])
    assert (found.ok, found.text) == (False, "http://127.0.0.1:1/readyz: the answer is not that of an edge")


async def test_a_failure_without_words_is_told_by_its_code(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> str:
        raise BusUnavailable

    monkeypatch.setattr(diagnosis, "_nats", silent)
    found = (await examine(settings, "pricing"))[2]
    assert found == Check(part="nats", ok=False, text=str(Code.BUS_UNAVAILABLE))


class Identity:
    """A workload's identity as a test wants it."""

    def __init__(self, *, begun: float, left: float, authority_left: float | None) -> None:
        now = wall_clock()
        self.spiffe_id = SpiffeId("spiffe://example.org/agent/pricing")
        self._x509 = SimpleNamespace(
            not_before=now - int(begun * SECOND),
            not_after=now + int(left * SECOND),
            bundles={self.spiffe_id.trust_domain: ()}
            if authority_left is None
            else {
                self.spiffe_id.trust_domain: (self._authority(authority_left),),
                TrustDomain("partner.example"): (b"",),
            },
        )

    @staticmethod
    def _authority(left: float) -> bytes:
        return ThrowawayCa("example.org", life=left).cert_der

    def x509(self) -> SimpleNamespace:
        return self._x509

    def sealer(self) -> SimpleNamespace:
        return SimpleNamespace(expires=wall_clock() + 60 * SECOND)


async def found_with(identity: Identity, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    monkeypatch.setattr(diagnosis, "open_identity", lambda *_: nullcontext(identity))
    return {one.part: one for one in await examine(settings, "pricing")}


async def test_an_identity_that_is_renewed_in_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await found_with(Identity(begun=30, left=30, authority_left=3600), settings, monkeypatch)
    assert found["identity"].ok
    assert "spiffe://example.org/agent/pricing, X.509-SVID for" in found["identity"].text
    assert found["trust"].ok
    assert "1 authorities" in found["trust"].text
    assert "1 foreign trust domains" in found["trust"].text


async def test_a_certificate_that_nobody_renews(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await found_with(Identity(begun=80, left=19, authority_left=3600), settings, monkeypatch)
    assert not found["identity"].ok
    assert "there is no newer one: look at the log of the SPIRE agent" in found["identity"].text


@pytest.mark.parametrize("authority_left", [10.0, None])
async def test_a_trust_bundle_that_ends_before_the_certificate(
    authority_left: float | None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await found_with(Identity(begun=30, left=30, authority_left=authority_left), settings, monkeypatch)
    assert not found["trust"].ok
    assert "trust bundle of example.org is stale" in found["trust"].text


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (0.0, "the broker"),
        (-3600.0, "behind the broker, 5 s are allowed: synchronize the clocks"),
        (3600.0, "ahead of the broker, 5 s are allowed: synchronize the clocks"),
        (None, "does not report its time"),
    ],
)
async def test_the_clock_is_held_against_the_brokers(
    ahead: float | None, text: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = 0 if ahead is None else wall_clock() - int(ahead * SECOND)

    async def jetstream(subject: str, payload: bytes) -> bytes:
        del payload
        assert subject == "$JS.API.STREAM.LIST"
        at = datetime.fromtimestamp(told / SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ts = {} if not told else {"ts": at}
        tasks = {"config": {"name": "TASKS"}, "created": "2026-11-24T16:42:57Z", "state": {"messages": 0, "bytes": 0}}
        return json.dumps({"total": 1, "streams": [{**tasks, **ts}]}).encode()

    connection = SimpleNamespace(jetstream=jetstream)
    monkeypatch.setattr(diagnosis, "open_connection", lambda *_: nullcontext((None, connection)))
    found = await diagnosis._check("clock", lambda: diagnosis._clock(settings, "pricing"))
    assert found.ok is (ahead == 0.0)
    assert text in found.text


async def test_an_engine_that_decides_nothing_is_wrong(settings: Settings) -> None:
    away = changed(settings.policy, engine="sidecar", opa=("/nowhere/opa.sock",))
    *_, found = await examine(changed(settings, policy=away), "pricing")
    assert (found.part, found.ok) == ("policy", False)
    assert found.text == "sidecar: OPA at /nowhere/opa.sock does not answer: UnixClientConnectorError"


async def test_the_central_engine_needs_an_identity_to_be_asked(settings: Settings) -> None:
    central = changed(settings.policy, engine="central", opa=("https://127.0.0.1:1",))
    *_, found = await examine(changed(settings, policy=central), "pricing")
    assert (found.part, found.ok) == ("policy", False)
    assert str(settings.workload_api).removeprefix("unix://") in found.text
