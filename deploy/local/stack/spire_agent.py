"""A SPIRE agent, started with `deploy/local/spire/agent.conf`: the Workload API of this machine."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sealbus.agents.files import PRIVATE, PUBLIC, replace_file
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from stack.program import Program, output_of
from stack.spire_server import SpireServer, checked_socket
from stack.tools import CONFIGURATION, find_tool

__all__ = ["SpireAgent"]


class SpireAgent:
    """One agent of `server`, started by `async with` and gone afterwards.

    Its state is in `folder`/data (mode 0700), the Workload API's socket in `folder`/api, which everybody on the machine
    may open. `program` may be killed and started again without a new join token.
    """

    def __init__(self, folder: Path, *, server: SpireServer, name: str = "host") -> None:
        self.folder: Final = folder.absolute()
        self.server: Final = server
        self.spiffe_id: Final = SpiffeId(f"spiffe://{server.trust_domain}/{name}")
        self.data: Final = self.folder / "data"
        self.socket: Final = checked_socket(self.folder / "api" / "agent.sock")
        self._tool = str(find_tool("spire-agent"))
        self.program: Final = Program(
            [self._tool, "run", "-config", str(CONFIGURATION / "spire" / "agent.conf"), "-expandEnv"],
            log=self.data / "agent.err",
            healthy=self._healthy,
            environment={
                "SPIRE_TRUST_DOMAIN": server.trust_domain.name,
                "SPIRE_AGENT_FOLDER": str(self.data),
                "SPIRE_AGENT_SOCKET": str(self.socket),
                "SPIRE_SERVER_PORT": str(server.port),
                "SPIRE_REFRESH": f"{server.refresh}s",
            },
        )

    @property
    def address(self) -> str:
        """The Workload API, as it stands in SPIFFE_ENDPOINT_SOCKET."""
        return f"unix://{self.socket}"

    async def __aenter__(self) -> Self:
        """Join the server and start; raise `ConfigurationError`, one line, if that does not succeed."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket.parent.mkdir(mode=0o755, exist_ok=True)
        replace_file(self.data / "bundle.pem", await self.server.bundle(), mode=PUBLIC)
        token = await self.server.join_token(self.spiffe_id)
        replace_file(self.data / "join-token", token.encode(), mode=PRIVATE)
        await self.program.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.program.stop()

    async def _healthy(self) -> bool:
        try:
            await output_of([self._tool, "healthcheck", "-socketPath", str(self.socket)])
        except ConfigurationError:
            return False
        return True
