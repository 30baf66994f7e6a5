from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe._proto import workload_pb2 as proto
from support.scripted_workload_api import ScriptedWorkloadApi
from support.workload_api import MovedClock

from sealbus.agents.identity.svid_files.files import SvidFiles
from sealbus.agents.identity.svid_files.server import HealthAddresses, NotRunning, ServerProcess
from sealbus.agents.identity.svid_files.writer import ReloadedServer, SvidWriter
from sealbus.agents.identity.workload_api import Endpoint
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = pytest.mark.workload_api

WITHIN = 60.0


class FakeProcess(ServerProcess):
    """Counts what it is told, and fails as a test wants it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "pid")
        self.reloads = 0
        self.checks = 0
        self.failure: Exception | None = None

    def check(self) -> None:
        self.checks += 1
        if self.failure is not None:
            raise self.failure

    def reload(self) -> None:
        self.reloads += 1


class FakeResponders(HealthAddresses):
    def __init__(self) -> None:
        super().__init__(["http://callout/readyz"])
        self.up = True
        self.asked = 0

    async def any_healthy(self) -> bool:
        self.asked += 1
        return self.up


@dataclass
class Bench:
    """A writer's parts, and what it told."""

    api: ScriptedWorkloadApi
    clock: MovedClock
    folder: Path
    process: FakeProcess
    responders: FakeResponders = field(default_factory=FakeResponders)
    sets: list[X509Material] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def writer(self, *, reloads: bool = True, also_trusted: tuple[TrustDomain, ...] = ()) -> SvidWriter:
        server = ReloadedServer(process=self.process, responders=self.responders)
        return SvidWriter(
            Endpoint.find(self.api.address),
            SvidFiles(self.folder / "svid", also_trusted=also_trusted),
            server=server if reloads else None,
            written=self.sets.append,
            say=self.lines.append,
            clock=self.clock,
            random=lambda: 0.0,
        )

    def on_disk(self) -> bytes:
        """Return the leaf that a server would read, as DER."""
        found = x509.load_pem_x509_certificate((self.folder / "svid" / "svid.pem").read_bytes())
        return found.public_bytes(Encoding.DER)


@pytest.fixture
def bench(scripted: ScriptedWorkloadApi, clock: MovedClock, tmp_path: Path) -> Bench:
    return Bench(api=scripted, clock=clock, folder=tmp_path, process=FakeProcess(tmp_path))


@asynccontextmanager
async def running(bench: Bench, *, reloads: bool = True) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.writer(reloads=reloads).keep_current())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not holds():  # noqa: ASYNC110 - files and fakes have no events
            await asyncio.sleep(0.005)


async def test_once_writes_tells_the_server_and_ends(bench: Bench) -> None:
    await bench.writer().write_once()
    assert bench.on_disk() == bench.sets[0].chain[0]
    assert (bench.process.reloads, len(bench.sets), bench.lines) == (1, 1, [])


async def test_once_needs_no_server(bench: Bench) -> None:
    await bench.writer(reloads=False).write_once()
    bench.process.failure = NotRunning("not yet")
    await bench.writer().write_once()
    assert (bench.process.reloads, len(bench.sets)) == (0, 2)


async def test_once_without_a_responder_leaves_the_server_alone_and_says_so(bench: Bench) -> None:
    bench.responders.up = False
    with pytest.raises(BusUnavailable, match="the server is not reloaded: no callout responder is healthy"):
        await bench.writer().write_once(patience=0.5)
    assert bench.process.reloads == 0
    assert bench.responders.asked > 1
    assert len(bench.lines) == 1
    assert bench.on_disk() == bench.sets[0].chain[0]


async def test_once_waits_for_a_responder(bench: Bench) -> None:
    bench.responders.up = False
    once = asyncio.create_task(bench.writer().write_once())
    await until(lambda: bench.responders.asked >= 2)
    bench.responders.up = True
    await once
    assert bench.process.reloads == 1


async def test_once_says_whom_it_could_not_signal(bench: Bench) -> None:
    bench.process.failure = ConfigurationError("stale")
    with pytest.raises(ConfigurationError, match="stale"):
        await bench.writer().write_once()


async def test_without_an_identity_it_ends_at_once(bench: Bench) -> None:
    bench.api.status["FetchX509SVID"] = "PERMISSION_DENIED"
    for begin in (bench.writer().write_once, bench.writer().keep_current):
        with pytest.raises(IdentityUnavailable, match="no identity for this workload"):
            await begin(deadline=WITHIN)
    assert bench.sets == []
    assert not (bench.folder / "svid" / "svid.pem").exists()


async def test_a_workload_api_that_hangs_is_given_up(bench: Bench) -> None:
    bench.api.silent = True
    with pytest.raises(IdentityUnavailable, match=r"no identity within 0\.2 s"):
        await bench.writer().keep_current(deadline=0.2)


@pytest.mark.slow
async def test_a_workload_api_that_starts_late_is_waited_for(bench: Bench) -> None:
    """Within the deadline: nobody's answer is no answer."""
    bench.api.status["FetchX509SVID"] = "UNAVAILABLE"
    once = asyncio.create_task(bench.writer().write_once(deadline=WITHIN))
    await bench.api.until("FetchX509SVID", 2)
    bench.api.status.clear()
    await once
    assert len(bench.sets) == 1
    bench.api.status["FetchX509SVID"] = "UNAVAILABLE"
    with pytest.raises(
        IdentityUnavailable, match=r"no identity within 0\.5 s: .* is overloaded or cannot reach its server"
    ):
        await bench.writer().write_once(deadline=0.5)


@pytest.mark.slow
async def test_who_runs_on_may_be_patient(bench: Bench) -> None:
    """An entry that is registered later is waited for, and said once."""
    bench.api.status["FetchX509SVID"] = "PERMISSION_DENIED"
    writing = asyncio.create_task(bench.writer().keep_current(deadline=WITHIN, patient=True))
    await bench.api.until("FetchX509SVID", 3)
    bench.api.status.clear()
    await until(lambda: len(bench.sets) == 1)
    writing.cancel()
    await asyncio.wait({writing})
    assert ["register an entry" in line for line in bench.lines] == [True]
    bench.api.status["FetchX509SVID"] = "UNIMPLEMENTED"
    with pytest.raises(IdentityUnavailable, match="is not a SPIFFE Workload API"):
        await bench.writer().keep_current(deadline=WITHIN, patient=True)


async def test_each_rotation_is_written_then_told(bench: Bench) -> None:
    async with running(bench):
        for number in range(1, 4):
            await until(lambda number=number: bench.process.reloads == number)  # type: ignore[misc]
            assert bench.on_disk() == bench.sets[-1].chain[0]
            bench.api.identity.renew()
    assert len({one.chain for one in bench.sets}) == len(bench.sets)


@pytest.mark.slow
async def test_what_cannot_be_used_is_not_written(bench: Bench) -> None:
    """Junk from the Workload API: the files stay, it is said once, and the next good SVID is taken."""
    async with running(bench):
        await until(lambda: bench.process.reloads == 1)
        before = bench.on_disk()
        bench.api.x509 = lambda response: proto.X509SVIDResponse(
            svids=[proto.X509SVID(spiffe_id=response.svids[0].spiffe_id, x509_svid=b"junk")]
        )
        bench.api.identity.renew()
        await bench.api.until("FetchX509SVID", 4)
        assert (bench.on_disk(), bench.process.reloads) == (before, 1)
        assert [line for line in bench.lines if "cannot be parsed" in line] == bench.lines
        assert len(bench.lines) == 1
        bench.api.x509 = lambda response: response
        await until(lambda: bench.process.reloads == 2)
        assert bench.on_disk() != before


async def test_without_a_responder_files_are_renewed_and_the_server_waits(bench: Bench) -> None:
    bench.responders.up = False
    async with running(bench):
        await until(lambda: bench.responders.asked >= 2)
        for number in range(2, 4):
            bench.api.identity.renew()
            await until(lambda number=number: len(bench.sets) == number)  # type: ignore[misc]
        assert bench.process.reloads == 0
        assert len(bench.lines) == 1
        assert "no callout responder is healthy" in bench.lines[0]
        bench.responders.up = True
        await until(lambda: bench.process.reloads >= 1)
        bench.responders.up = False
        bench.api.identity.renew()
        await until(lambda: len(bench.lines) == 2)


async def test_a_server_that_is_not_started_yet_is_not_waited_for(bench: Bench) -> None:
    """It will read what is there. After a rotation it is told once it is there: it may have begun with the old files."""
    bench.process.failure = NotRunning("there is no pid")
    bench.responders.up = False
    async with running(bench):
        await until(lambda: bench.process.checks == 1)
        assert (bench.lines, bench.responders.asked) == ([], 0)
        bench.responders.up = True
        bench.api.identity.renew()
        await until(lambda: bench.lines == ["not reloading: there is no pid; trying again"])
        bench.process.failure = None
        await until(lambda: bench.process.reloads == 1)


@pytest.mark.slow
async def test_a_server_that_cannot_be_signaled_is_said_once_and_tried_again(bench: Bench) -> None:
    bench.process.failure = ConfigurationError("stale")
    async with running(bench):
        await until(lambda: bench.process.checks >= 3)
        assert bench.lines == ["not reloading: stale; trying again"]
        bench.process.failure = None
        await until(lambda: bench.process.reloads == 1)


async def test_a_trust_domain_that_is_not_federated_with_is_said_once(bench: Bench) -> None:
    task = asyncio.create_task(bench.writer(also_trusted=(TrustDomain("partner.org"),)).keep_current())
    for number in range(1, 4):
        await until(lambda number=number: bench.process.reloads == number)  # type: ignore[misc]
        bench.api.identity.renew()
    task.cancel()
    await asyncio.wait({task})
    assert bench.lines == ["not trusted, because the Workload API gives no X.509 bundle for it: partner.org"]


@pytest.mark.slow
async def test_a_disk_that_is_full_is_said_once_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(bench):
        await until(lambda: bench.process.reloads == 1)
        before = bench.on_disk()
        attempts = 0

        def full(*_: object) -> None:
            nonlocal attempts
            attempts += 1
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            bench.api.identity.renew()
            await until(lambda: attempts >= 3)
            assert (bench.on_disk(), bench.process.reloads) == (before, 1)
        await until(lambda: bench.process.reloads == 2)
        assert bench.on_disk() != before
        assert len(bench.lines) == 1
        assert "No space left" in bench.lines[0]


async def test_a_disk_that_is_full_at_the_start_ends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        await bench.writer().keep_current()


@pytest.mark.slow
async def test_a_withdrawn_identity_leaves_the_disk_and_comes_back(bench: Bench) -> None:
    async with running(bench):
        await until(lambda: bench.process.reloads == 1)
        bench.api.status["FetchX509SVID"] = "PERMISSION_DENIED"
        bench.api.x509 = lambda response: proto.X509SVIDResponse()
        bench.api.identity.renew()
        await until(lambda: not (bench.folder / "svid" / "svid.key").exists())
        await until(lambda: any("withdrawn" in line for line in bench.lines))
        calls = bench.api.calls["FetchX509SVID"]
        await bench.api.until("FetchX509SVID", calls + 3)
        assert len([line for line in bench.lines if "withdrawn" in line]) == 1
        assert len([line for line in bench.lines if "register an entry" in line]) == 1
        assert bench.process.reloads == 1
        bench.api.status.clear()
        bench.api.x509 = lambda response: response
        await until(lambda: bench.process.reloads == 2)
        assert bench.on_disk() == bench.sets[-1].chain[0]
