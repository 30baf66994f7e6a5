"""OPA as a child process."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.central_opa import OPA_ID, SYSTEM, tls_of
from support.opa import require_opa
from support.policies import bundle, document, eventually, put
from support.ports import held_port
from support.x509 import ThrowawayCa

from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import write_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.engines.central import CentralEngine
from sealbus.policies.engines.sidecar import SidecarEngine
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.opa import process as opa_process
from sealbus.policies.opa.process import MutualTls, OpaProcess


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="opa-"))
    (found / "bundle").mkdir()
    write_bundle(bundle(), found / "bundle" / "bundle.tar.gz")
    yield found
    shutil.rmtree(found)


def process(folder: Path, program: Path | None = None) -> OpaProcess:
    return OpaProcess(
        program or require_opa(), socket=folder / "run" / "opa.sock", bundle=folder / "bundle" / "bundle.tar.gz"
    )


def script(folder: Path, text: str) -> Path:
    """Write a program in OPA's place."""
    file = folder / "opa"
    file.write_text(f"#!{sys.executable}\n{text}")
    file.chmod(0o755)
    return file


async def revision(engine: SidecarEngine) -> str:
    [answer] = await engine.decide([document()])
    return answer.revision if isinstance(answer, Decision) else ""


async def until(engine: SidecarEngine, wanted: str) -> None:
    async def holds() -> bool:
        return await revision(engine) == wanted

    await eventually(holds)


def children(of: int) -> set[int]:
    """Return the processes whose parent is `of`."""
    found: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == of and fields[0] != "Z":
            found.add(int(status.parent.name))
    return found


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.mark.opa
async def test_it_decides_and_watches_its_bundle(folder: Path) -> None:
    async with process(folder) as opa, SidecarEngine(opa.socket) as engine:
        assert await revision(engine) == "r1"
        assert mode(opa.socket.parent) == 0o700
        assert mode(opa.socket) == 0o600
        write_bundle(bundle(revision="r2"), folder / "bundle" / "bundle.tar.gz")
        await until(engine, "r2")
        socket = opa.socket
    async with SidecarEngine(socket) as engine:
        assert await revision(engine) == ""


@pytest.mark.opa
async def test_a_central_one_is_asked_over_tls_and_its_socket_tells_health_only(folder: Path) -> None:
    ca = ThrowawayCa("example.org")
    svid = ca.issue(OPA_ID)
    tls = MutualTls(
        address=f"127.0.0.1:{held_port()}",
        certificate=folder / "svid.pem",
        key=folder / "svid.key",
        trust_bundle=folder / "trust.pem",
        system=SYSTEM,
    )
    put(svid.cert_pem, tls.certificate)
    put(svid.key_pem, tls.key)
    put(ca.cert_pem, tls.trust_bundle)
    file = folder / "bundle" / "bundle.tar.gz"
    opa = OpaProcess(require_opa(), socket=folder / "run" / "opa.sock", bundle=file, tls=tls)
    async with opa, CentralEngine([f"https://{tls.address}"], tls=tls_of(ca)) as engine:
        assert (await engine.status()).revision == "r1"
        write_bundle(bundle(revision="r2"), file)

        async def replaced() -> bool:
            return (await engine.status()).revision == "r2"

        await eventually(replaced)
        async with SidecarEngine(opa.socket) as outside:
            assert "404" in (await outside.status()).problem or "401" in (await outside.status()).problem
        put(bundle(revision="bad", policy="package x {").raw, file)

        async def told() -> bool:
            return opa.problem != ""

        await eventually(told)
        assert (await engine.status()).revision == "r2"
    async with CentralEngine([f"https://{tls.address}"], tls=tls_of(ca)) as engine:
        assert "ClientConnectorError" in (await engine.status()).problem


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


@pytest.mark.opa
async def test_it_says_why_a_replaced_bundle_is_not_in_force(folder: Path) -> None:
    file = folder / "bundle" / "bundle.tar.gz"
    async with process(folder) as opa, SidecarEngine(opa.socket) as engine:
        assert opa.problem == ""
        put(bundle(revision="bad", policy="package x {").raw, file)

        async def refused() -> bool:
            return "authz.rego:1: rego_parse_error" in opa.problem

        await eventually(refused)
        assert await revision(engine) == "r1"
        write_bundle(bundle(revision="r2"), file)

        async def taken() -> bool:
            return not opa.problem

        await eventually(taken)
        assert await revision(engine) == "r2"


@pytest.mark.opa
async def test_a_killed_child_is_started_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opa_process, "BACKOFF", Backoff(initial_interval=0.01, maximum_interval=5.0))
    before = children(os.getpid())
    async with process(folder) as opa, SidecarEngine(opa.socket) as engine:
        [pid] = children(os.getpid()) - before
        os.kill(pid, signal.SIGKILL)

        async def replaced() -> bool:
            return children(os.getpid()) - before not in (set(), {pid})

        await eventually(replaced)
        await until(engine, "r1")
    assert children(os.getpid()) == before


@pytest.mark.opa
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_the_child_dies_with_its_parent(folder: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from sealbus.policies.opa.process import OpaProcess\n"
        "async def main():\n"
        "    folder = Path(sys.argv[2])\n"
        "    socket, bundle = folder / 'run/opa.sock', folder / 'bundle/bundle.tar.gz'\n"
        "    async with OpaProcess(Path(sys.argv[1]), socket=socket, bundle=bundle):\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(require_opa()), str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await asyncio.wait_for(parent.stdout.readline(), 30) == b"ready\n"
    [pid] = children(parent.pid)
    parent.kill()
    await parent.wait()

    async def dead() -> bool:
        return gone(pid)

    await eventually(dead)


async def test_a_program_that_cannot_be_run(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="SEALBUS_OPA"):
        await process(folder, folder / "none").__aenter__()
    put(b"", folder / "plain")
    for other in (folder / "plain", folder):
        with pytest.raises(ConfigurationError, match="cannot be run"):
            await process(folder, other).__aenter__()


async def test_a_bundle_that_may_not_be_put_in_force(folder: Path) -> None:
    put(bundle(policy="package x {").raw, folder / "bundle" / "bundle.tar.gz")
    with pytest.raises(PolicyRefused, match=r"authz\.rego:1:11"):
        await process(folder, Path(sys.executable)).__aenter__()


def test_socket_and_bundle_in_one_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="load without end"):
        OpaProcess(Path("opa"), socket=tmp_path / "opa.sock", bundle=tmp_path / "bundle.tar.gz")


async def test_a_program_that_ends_at_once(folder: Path) -> None:
    program = script(folder, "import sys\nsys.stderr.write('no such flag\\n\\nusage')\nsys.exit(3)\n")
    with pytest.raises(ConfigurationError, match="ended at once: no such flag  usage"):
        await process(folder, program).__aenter__()


@pytest.mark.slow
async def test_a_program_that_never_is_healthy_and_ignores_sigterm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opa_process, "READY_WITHIN", 1.0)
    monkeypatch.setattr(opa_process, "STOP_WITHIN", 0.2)
    # A shell and not Python: it ignores the signal from its first moment on, also where processors are busy.
    program = folder / "deaf"
    program.write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 60\n")
    program.chmod(0o700)
    before = children(os.getpid())
    with pytest.raises(ConfigurationError, match="not healthy within 1 s"):
        await process(folder, program).__aenter__()
    assert children(os.getpid()) == before


FLAKY = """
import pathlib, sys
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer

class Health(BaseHTTPRequestHandler):
    def address_string(self): return "x"
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200 if runs == 1 or runs > 3 else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if runs == 1:
            self.wfile.flush()
            sys.stderr.write("x" * 70000 + "\\n[1]\\n{}\\n")
            sys.stderr.flush()
            raise SystemExit(1)

counter = pathlib.Path(__file__).with_name("runs")
runs = int(counter.read_text()) + 1 if counter.exists() else 1
counter.write_text(str(runs))
if runs == 2:
    sys.exit(1)
socket = sys.argv[sys.argv.index("--addr") + 1].removeprefix("unix://")
pathlib.Path(socket).unlink(missing_ok=True)
server = UnixStreamServer(socket, Health)
server.handle_error = lambda *_: None
while True:
    server.handle_request()
"""


@pytest.mark.slow
async def test_a_child_that_ends_is_tried_again_until_it_is_healthy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first run ends after it was healthy, the second at once, the third never is, the fourth is well."""
    monkeypatch.setattr(opa_process, "BACKOFF", Backoff(initial_interval=0.01, maximum_interval=5.0))
    monkeypatch.setattr(opa_process, "READY_WITHIN", 1.5)
    caplog.set_level(logging.INFO)
    runs = folder / "runs"
    async with process(folder, script(folder, FLAKY)):

        async def fourth() -> bool:
            return int(text_of(runs) or 0) >= 4 and "opa is healthy again" in caplog.text

        await eventually(fourth, within=30)
        assert "(a line of over 64 KiB)" in caplog.text
    assert "opa does not start" in caplog.text


async def test_leaving_without_having_entered(folder: Path) -> None:
    await process(folder, folder / "none").__aexit__(None, None, None)
