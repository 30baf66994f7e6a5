"""A nats-server, started with a configuration of `deploy/local/nats/`: alone, or as one of a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self

from sealbus.agents.dev.nats.accounts import SYSTEM, accounts
from sealbus.agents.dev.nats.config import BrokerUser, Permissions
from sealbus.agents.dev.nats.server import find_nats_server
from sealbus.agents.files import PRIVATE, replace_file
from sealbus.agents.identity.svid_files.server import HealthAddresses
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from stack.program import Program
from stack.tools import CONFIGURATION

__all__ = ["NatsServer", "Part", "Route", "access", "listed", "static_users"]


class Part(Protocol):
    """What makes a server more than one by itself: a file that is included after `server.conf`, and its variables."""

    @property
    def configuration(self) -> Path:
        """The file."""
        ...

    @property
    def arguments(self) -> Sequence[str]:
        """What the command has beside."""
        ...

    def variables(self) -> Mapping[str, str]:
        """Return the variables of the file that `server.conf` has not, as the server reads them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How the servers of a cluster reach each other: this one's port, everybody's, and the SPIFFE ID that all have.

    `host` is a DNS name of the servers' SVIDs. Clusters that are joined have different names.
    """

    port: int
    ports: tuple[int, ...]
    server_id: SpiffeId
    host: str = "localhost"
    cluster: str = "sealbus"

    @property
    def configuration(self) -> Path:
        """The file `cluster.conf`."""
        return CONFIGURATION / "nats" / "cluster.conf"

    @property
    def arguments(self) -> Sequence[str]:
        """The cluster's name, in place of that in the file."""
        return ("--cluster_name", self.cluster)

    def variables(self) -> dict[str, str]:
        """Return the variables of `cluster.conf` that `server.conf` has not."""
        return {
            "NATS_CLUSTER_LISTEN": json.dumps(f"127.0.0.1:{self.port}"),
            "NATS_ROUTES": json.dumps([f"nats-route://{self.host}:{port}" for port in self.ports]),
            "NATS_SERVER_ID": json.dumps(str(self.server_id)),
        }


class NatsServer:
    """One server, started by `async with` and gone afterwards; its state stays in `folder`.

    `svid` is the folder that `sealbus identity write` keeps fresh and that must hold an SVID by now; tell it to reload
    `pid_file`. `access` is the part of the configuration that says who may connect, such as `static_users`. It is ready
    once JetStream is, which takes two servers of a cluster of three: start them together. `parts` make it more than one
    server by itself, such as `Route`. `program` may be killed and started again. `uid` is the user that it runs as, who must
    be the writer's of `svid`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        svid: Path,
        port: int,
        monitor: int,
        access: str,
        name: str = "nats",
        parts: Sequence[Part] = (),
        uid: int | None = None,
    ) -> None:
        self.folder: Final = folder.absolute()
        self.port: Final = port
        self.url: Final = f"tls://127.0.0.1:{port}"
        self.pid_file: Final = self.folder / "nats.pid"
        self.log_file: Final = self.folder / "nats.log"
        self._health = HealthAddresses([f"http://127.0.0.1:{monitor}/healthz"])
        variables = {
            "NATS_NAME": name,
            "NATS_LISTEN": f"127.0.0.1:{port}",
            "NATS_MONITOR": f"127.0.0.1:{monitor}",
            "NATS_PID_FILE": str(self.pid_file),
            "NATS_LOG": str(self.log_file),
            "NATS_SVID": str(svid.absolute() / "svid.pem"),
            "NATS_SVID_KEY": str(svid.absolute() / "svid.key"),
            "NATS_BUNDLE": str(svid.absolute() / "bundle.pem"),
            "NATS_STORE": str(self.folder / "store"),
        }
        # The server reads the value of a variable as it reads a value in the file; JSON's are valid there.
        environment = {key: json.dumps(value) for key, value in variables.items()}
        included, arguments = [CONFIGURATION / "nats" / "server.conf"], list[str]()
        for part in parts:
            included.append(part.configuration)
            arguments += part.arguments
            environment |= part.variables()
        self._configuration = self.folder / "nats.conf"
        self._text = "".join(f"include {json.dumps(self._path_of(file))}\n" for file in included) + access
        self.program: Final = Program(
            [str(find_nats_server()), "-c", str(self._configuration), *arguments],
            log=self.folder / "nats.err",
            healthy=self._health.any_healthy,
            environment=environment,
            uid=uid,
        )
        self._uid = uid

    async def __aenter__(self) -> Self:
        """Start; raise `ConfigurationError`, one line, if that does not succeed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._configuration, self._text.encode(), mode=PRIVATE)
        if self._uid is not None:
            for path in (self.folder, self._configuration):
                os.chown(path, self._uid, self._uid)
        await self.program.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.program.stop()

    def _path_of(self, file: Path) -> str:
        # The server takes the path of an include for one below the folder of the file that it stands in.
        return os.path.relpath(file, self.folder)


def static_users(
    users: Mapping[SpiffeId, Permissions],
    *,
    with_streams: Mapping[SpiffeId, Permissions] = MappingProxyType({}),
    own: Sequence[OwnSubject] = (),
) -> str:
    """Return the configuration with which exactly these may connect.

    `with_streams`, such as operators, are in the account that has the streams. `own` are the deployment's own subjects, of
    which those that are stored cross to the streams.
    """
    return access(accounts(with_streams=listed(with_streams), others=listed(users), own=own))


def access(accounts_: Mapping[str, object]) -> str:
    """Return the configuration with these accounts."""
    return f"accounts: {json.dumps(accounts_)}\nsystem_account: {SYSTEM}\n"


def listed(users: Mapping[SpiffeId, Permissions]) -> list[object]:
    """Return `users` as an account has them."""
    return [
        BrokerUser(spiffe_id=spiffe_id, permissions=permissions).config() for spiffe_id, permissions in users.items()
    ]
