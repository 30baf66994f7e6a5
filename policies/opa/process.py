"""OPA as a child process, which is restarted if it ends, and ends with its parent in any case.

It decides next to a worker on a unix socket, or as a central OPA that is asked over mutual TLS.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import aiohttp

from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import load_bundle
from sealbus.policies.entered import Entered
from sealbus.policies.opa.wire import SYSTEM

_logger: Final = logging.getLogger(__name__)

READY_WITHIN: Final = 10.0
STOP_WITHIN: Final = 2.0
BACKOFF: Final = Backoff(initial_interval=0.2, maximum_interval=5.0)
"""Pause before a child is restarted, longer after each start that does not become healthy."""
_LOOK_EVERY: Final = 0.02
_WATCHED: Final = "Processed file watch event."
_QUIET: Final = frozenset({"info", "warning"})
"""Levels that are not logged here: start messages, and the warning that OPA runs as root."""

# The launcher asks the kernel to kill it when its parent dies, then becomes OPA. Doing so in a forked child of our own
# would run Python between fork and exec while other threads hold locks.
_LAUNCHER: Final = """
import ctypes, os, signal, sys
parent, program = int(sys.argv[1]), sys.argv[2]
if sys.platform == "linux":
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
os.execv(program, sys.argv[2:])
"""


class OpaProcess(Entered):
    """Runs `opa run --server` on the unix socket `socket`. It decides by the bundle file `bundle`, which it watches.

    With `tls` it is a central OPA: it answers at that address over mutual TLS, and the socket serves only its health. Its
    bundle must then declare its roots, because OPA allows no second bundle beside one that may define everything.

    Entering waits until OPA is healthy. It raises `ConfigurationError` if `program` cannot be run, the bundle may not be put
    in force, or OPA does not become healthy within 10 s. While entered, a child that ends is started again. Leaving ends it
    with SIGTERM, and with SIGKILL after 2 s. On Linux the child dies with this process even if this process is killed.

    OPA reloads whenever anything in the folder of `bundle` changes. So this folder must hold nothing else that changes, and
    `socket` must be in another folder.
    """

    def __init__(self, program: Path, *, socket: Path, bundle: Path, tls: MutualTls | None = None) -> None:
        if socket.parent == bundle.parent:
            raise ConfigurationError(f"{socket} and {bundle} are in one folder: OPA would load without end")
        self.socket = socket
        self._program = program
        self._bundle = bundle
        self._tls = tls
        self._problem = ""

    @property
    def problem(self) -> str:
        """Return why OPA did not accept the current bundle, in OPA's words with file and line; empty if it did."""
        return self._problem

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        program = await asyncio.to_thread(_executable, self._program)
        await asyncio.to_thread(load_bundle, self._bundle)
        await asyncio.to_thread(_prepare, self.socket)
        process = await self._start(program)
        try:
            await self._healthy(process)
        except BaseException:
            await _stop(process)
            raise
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep(program, process), name="opa")
            yield
            keeper.cancel()

    async def _start(self, program: Path) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(program),
            *server_arguments(socket=self.socket, bundle=self._bundle, tls=self._tls),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=PIPE,
        )  # fmt: skip

    async def _keep(self, program: Path, process: Process) -> None:
        """Read OPA's log, and start OPA again whenever it ends. When this task ends, end OPA."""
        failures = 0
        try:
            while True:
                await self._listen(process)
                _logger.warning("opa ended with %s and is started again", await process.wait())
                await asyncio.sleep(BACKOFF.interval(failures + 1))
                process = await self._start(program)
                try:
                    await self._healthy(process)
                    failures = 0
                    _logger.info("opa is healthy again")
                except ConfigurationError as error:
                    failures += 1
                    _logger.error("opa does not start: %s", error.detail)  # noqa: TRY400  the detail says all
                    await _stop(process)
        finally:
            await _stop(process)

    async def _listen(self, process: Process) -> None:
        """Read OPA's log until OPA closes it."""
        while (line := await _line(process)) is not None:
            entry = _parse(line)
            if entry.get("msg") == _WATCHED:
                self._problem = str(entry.get("err") or "")
                if self._problem:
                    _logger.warning("opa refuses the new policy bundle, the old one stays: %s", self._problem)
            elif entry.get("level") not in _QUIET:
                _logger.warning("opa: %s", line)

    async def _healthy(self, process: Process) -> None:
        try:
            async with (
                asyncio.timeout(READY_WITHIN),
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(self.socket))) as session,
            ):
                while not await _answers(session):
                    if process.returncode is not None:
                        raise ConfigurationError(f"{self._program} ended at once: {await _rest(process)}")
                    # No event tells when the socket exists.
                    await asyncio.sleep(_LOOK_EVERY)
        except TimeoutError:
            raise ConfigurationError(f"{self._program} is not healthy within {READY_WITHIN:g} s") from None


def _executable(program: Path) -> Path:
    executable = program.absolute()
    if not os.access(executable, os.X_OK) or not executable.is_file():
        raise ConfigurationError(f"{program} cannot be run: install OPA, or set SEALBUS_OPA to its executable")
    return executable


def _prepare(socket: Path) -> None:
    """Make the private folder of the socket, and remove the socket of a killed OPA."""
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        socket.unlink()


async def _answers(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("http://opa/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


def _parse(line: str) -> dict[str, object]:
    """Parse a line of OPA's log; return an empty object for anything but a JSON object."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


async def _line(process: Process) -> str | None:
    """Return the next line that the child writes, shortened; None at the end."""
    try:
        line = await cast("asyncio.StreamReader", process.stderr).readline()
    except ValueError:
        return "(a line of over 64 KiB)"  # dropped by the reader
    return line.decode(errors="replace").rstrip("\n")[:2000] if line else None


async def _rest(process: Process) -> str:
    lines: list[str] = []
    while (line := await _line(process)) is not None:
        lines.append(line)
    return " ".join(lines)[-500:]


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualTls:
    """An address where OPA answers over mutual TLS 1.3, and its files, which OPA reads again within a second of a change.

    `certificate` and `key` are OPA's X.509-SVID, PEM. `trust_bundle` is the X.509 bundle, PEM, of the one trust domain
    whose workloads may connect. With two trust domains, the authority of one could impersonate the clients of the other.
    `system` is the folder of the policy bundle that defines which workloads may ask which questions. Its name is `system`,
    like its only root.
    """

    address: str
    certificate: Path
    key: Path
    trust_bundle: Path
    system: Path

    def __post_init__(self) -> None:
        if self.system.name != SYSTEM:
            raise ConfigurationError(f"{self.system}: the folder of the bundle that guards OPA must be called {SYSTEM}")


def server_arguments(
    *, socket: Path, bundle: Path | None = None, config: Path | None = None, tls: MutualTls | None = None
) -> list[str]:
    """Return the arguments of `opa` for a server that decides by the bundle file `bundle`, which it watches.

    With `config` it decides by the bundles that this configuration file names (`config.py`). Questions come on the unix
    socket. With `tls` they come to its address, and the socket serves only health and metrics.
    """
    if (bundle is None) == (config is None):
        raise ConfigurationError("OPA decides by a bundle file or by a configuration file: give exactly one")
    address = ["--addr", f"unix://{socket}"]
    bundles = ["--bundle", str(bundle), "--watch"] if bundle is not None else ["--config-file", str(config)]
    if tls is not None:
        address = [
            "--addr", tls.address, "--diagnostic-addr", f"unix://{socket}",
            "--authentication", "tls", "--authorization", "basic", "--min-tls-version", "1.3",
            "--tls-cert-file", str(tls.certificate), "--tls-private-key-file", str(tls.key),
            "--tls-ca-cert-file", str(tls.trust_bundle), "--tls-cert-refresh-period", "1s",
        ]  # fmt: skip
        bundles[2:2] = [str(tls.system)] if bundle is not None else ["--bundle", str(tls.system)]
    return [
        "run", "--server", *address, *bundles, "--unix-socket-perm", "600", "--skip-version-check",
        # Without this, OPA converts all data for each question.
        "--optimize-store-for-read-speed",
        # OPA logs at this level whether it accepts a replaced bundle. Requests go to another level.
        "--log-format", "json", "--log-level", "info", "--log-level-request", "debug",
    ]  # fmt: skip
