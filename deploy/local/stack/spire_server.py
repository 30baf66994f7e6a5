"""A SPIRE server, started with `deploy/local/spire/server.conf`, and its administration by its own command."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sealbus.agents.dev.workload_api.server import MAX_SOCKET_PATH
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from stack.program import Program, output_of
from stack.spire_entry import Entry
from stack.tools import CONFIGURATION, find_tool

__all__ = ["SpireServer", "checked_socket"]

_TOKEN_SECONDS: Final = 600


def checked_socket(path: Path) -> Path:
    """Return `path`, made absolute; raise `ConfigurationError` if it is longer than a socket's may be."""
    path = path.absolute()
    length = len(str(path).encode())
    if length > MAX_SOCKET_PATH:
        raise ConfigurationError(f"socket path {path} has {length} bytes, {MAX_SOCKET_PATH} are allowed: go elsewhere")
    return path


class SpireServer:
    """One server, started by `async with` and gone afterwards; its state stays in `folder` (mode 0700).

    `program` may be killed and started again: certificate authority, entries and bundles are on disk. `refresh` is the
    seconds until an agent may see a changed entry; SPIRE's default is 5. Whoever may open `socket` administers it.
    """

    def __init__(self, folder: Path, *, trust_domain: TrustDomain, port: int, refresh: int = 5) -> None:
        self.folder: Final = folder.absolute()
        self.trust_domain: Final = trust_domain
        self.port: Final = port
        self.refresh: Final = refresh
        self.socket: Final = checked_socket(self.folder / "api.sock")
        self._tool = str(find_tool("spire-server"))
        self.program: Final = Program(
            [self._tool, "run", "-config", str(CONFIGURATION / "spire" / "server.conf"), "-expandEnv"],
            log=self.folder / "server.err",
            healthy=self._healthy,
            environment={
                "SPIRE_TRUST_DOMAIN": trust_domain.name,
                "SPIRE_SERVER_FOLDER": str(self.folder),
                "SPIRE_SERVER_PORT": str(port),
                "SPIRE_REFRESH": f"{refresh}s",
            },
        )

    async def __aenter__(self) -> Self:
        """Start; raise `ConfigurationError`, one line, if that does not succeed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.program.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.program.stop()

    async def bundle(self, *, spiffe: bool = False) -> bytes:
        """Return the trust bundle: X.509 authorities as PEM, or with `spiffe` the JWK set that federation exchanges."""
        return await self._run("bundle", "show", "-format", "spiffe" if spiffe else "pem")

    async def set_foreign_bundle(self, trust_domain: TrustDomain, bundle: bytes) -> None:
        """Federate with `trust_domain`, whose bundle is `bundle` (`spiffe` format) until it is set anew."""
        await self._run(*("bundle", "set", "-format", "spiffe", "-id", f"spiffe://{trust_domain}"), stdin=bundle)

    async def join_token(self, agent: SpiffeId) -> str:
        """Return a token with which one SPIRE agent may join, within ten minutes, as `agent`."""
        said = await self.asked("token", "generate", "-spiffeID", str(agent), "-ttl", str(_TOKEN_SECONDS))
        return str(said["value"])

    async def create(self, entry: Entry, *, parent: SpiffeId) -> str:
        """Register `entry` below the agent `parent` and return its ID; agents see it within twice `refresh`."""
        said = await self.asked("entry", "create", *entry.arguments(parent))
        result = said["results"][0]
        if result["status"]["code"]:
            raise ConfigurationError(f"{entry.spiffe_id} is not registered: {result['status']['message']}")
        return str(result["entry"]["id"])

    async def delete(self, entry_id: str) -> None:
        """Remove a registration entry: its workload loses the identity within twice `refresh`."""
        await self._run("entry", "delete", "-entryID", entry_id)

    async def asked(self, *arguments: str) -> dict[str, Any]:
        """Return what the command `spire-server` with `arguments` answers; raise `ConfigurationError` if it fails."""
        said: dict[str, Any] = json.loads(await self._run(*arguments, "-output", "json"))
        return said

    async def _healthy(self) -> bool:
        try:
            await self._run("healthcheck")
        except ConfigurationError:
            return False
        return True

    async def _run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        words = {"healthcheck": 1, "localauthority": 3}.get(arguments[0], 2)
        command = [self._tool, *arguments[:words], "-socketPath", str(self.socket), *arguments[words:]]
        return await output_of(command, stdin=stdin)
