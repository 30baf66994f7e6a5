"""A real OPA for tests: built by `make tools`, on a unix socket in a folder of its own, gone afterwards."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

__all__ = ["OpaServer", "find_opa", "require_opa"]

_READY_SECONDS = 60.0
_BUILT = Path(__file__).parents[2] / ".tools" / "bin" / "opa"


def find_opa() -> Path | None:
    """Return the executable: that of `make tools`, of SEALBUS_OPA, or on PATH; None where there is none."""
    said = os.environ.get("SEALBUS_OPA")
    if said:
        return Path(said)
    if _BUILT.exists():
        return _BUILT
    found = shutil.which("opa")
    return Path(found) if found is not None else None


def require_opa() -> Path:
    """Return the executable; without one skip the test, or fail it in CI."""
    found = find_opa()
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail("there is no opa: `make tools` builds it")
    pytest.skip("there is no opa: `make tools` builds it")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("opa", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class OpaServer:
    """`opa run --server`, started by `with`; `arguments` are more of its command line, such as `--bundle FILE`.

    Blocks while it starts (0.1 s) and stops. `socket` stays the same over `kill()` and `start()`.
    """

    def __init__(self, *arguments: str) -> None:
        self._program = require_opa()
        self._arguments = arguments
        # Not pytest's temporary folder: socket paths hold at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="opa-"))
        self.socket = self.folder / "opa.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [self._program, *self.command()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _READY_SECONDS
        while True:
            try:
                if self.request("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None, "opa ended at once"
            assert time.monotonic() < until, "opa is not healthy in time"
            time.sleep(0.02)  # there is no event for a socket that is not there yet

    def command(self) -> list[str]:
        """Return what follows `opa` on its command line."""
        return [
            "run", "--server", "--addr", f"unix://{self.socket}", "--skip-version-check",
            "--log-level", "error", *self._arguments,
        ]  # fmt: skip

    def kill(self) -> None:
        """Kill it with SIGKILL, also while it is stopped."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Stop it where it is: it accepts connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # A signal takes effect when the process is next scheduled, and on a busy machine it may answer until then.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after `pause()`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, bytes]:
        """Return status and body of one request."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, body, {"Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def put_data(self, data: object) -> None:
        """Replace all data."""
        status, body = self.request("PUT", "/v1/data", json.dumps(data).encode())
        assert status == 204, body

    def put_policy(self, name: str, rego: str) -> str:
        """Add or replace a policy; return OPA's message where it does not compile, and nothing where it does."""
        status, body = self.request("PUT", f"/v1/policies/{name}", rego.encode(), "text/plain")
        if status == 200:
            return ""
        return str(json.loads(body)["errors"][0]["message"])

    def delete_policy(self, name: str) -> None:
        """Remove a policy."""
        status, body = self.request("DELETE", f"/v1/policies/{name}")
        assert status == 200, body

    def evaluate(self, path: str, document: object = None) -> dict[str, Any]:
        """Return `{"value": ...}`, `{}` for undefined or `{"error": ...}` for a dotted path below data, strictly."""
        body = json.dumps({} if document is None else {"input": document}).encode()
        status, answer = self.request("POST", f"/v1/data/{path.replace('.', '/')}?strict-builtin-errors=true", body)
        said: dict[str, Any] = json.loads(answer)
        if status != 200:
            return {"error": said["errors"][0]["code"]}
        return {"value": said["result"]} if "result" in said else {}
