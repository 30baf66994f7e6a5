"""The embedded Workload API: what a SPIRE agent is in production, for `sealbus dev` and the tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
from spiffe._proto import workload_pb2_grpc

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.dev.workload_api.server_svid import ServerSvidFiles, write_server_svid
from sealbus.agents.dev.workload_api.servicer import WorkloadServicer
from sealbus.agents.dev.workload_api.sockets import claim_socket, prepare_folder, socket_path
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.spiffe_id import SpiffeId

__all__ = ["EmbeddedWorkloadApi"]

_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 1_000))


class _Server(Protocol):
    """What of `grpc.aio.Server` is used here."""

    def add_insecure_port(self, address: str) -> int:
        """Bind `address`."""

    async def start(self) -> None:
        """Begin to accept connections."""

    async def stop(self, grace: float | None) -> None:
        """End all calls and close."""


@dataclass(slots=True, kw_only=True)
class _Endpoint:
    path: Path
    server: _Server
    servicer: WorkloadServicer
    identity: DeclaredIdentity


class EmbeddedWorkloadApi:
    """Serve the SPIFFE Workload API on one unix socket per declared identity, as an async context manager.

    Sockets have mode 0600 in `folder`, which gets mode 0700: whoever may open a socket is that workload, and nothing
    else is attested. X.509-SVIDs live `x509_ttl` seconds and are replaced at 45 % of that, JWT-SVIDs `jwt_ttl` seconds
    and are replaced at half, so that rotation happens all the time. Identities come and go while it runs. Everything
    stops with the context, streams included.
    """

    def __init__(
        self, folder: Path, authority: DevelopmentAuthority, *, x509_ttl: int = 60, jwt_ttl: int = 120
    ) -> None:
        if x509_ttl < 1 or jwt_ttl < 1:
            raise ConfigurationError("SVIDs live at least one second")
        self.folder = folder
        self.authority = authority
        self._x509_ttl = x509_ttl
        self._jwt_ttl = jwt_ttl
        self._endpoints: dict[SpiffeId, _Endpoint] = {}

    async def __aenter__(self) -> Self:
        prepare_folder(self.folder)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._endpoints:
            _, endpoint = self._endpoints.popitem()
            # The server first: a client is to see an agent that is gone, not an identity that was taken from it.
            await endpoint.server.stop(None)
            endpoint.identity.remove()
            endpoint.path.unlink(missing_ok=True)

    @property
    def identities(self) -> tuple[SpiffeId, ...]:
        """The identities that are served now, in the order in which they were declared."""
        return tuple(name for name, endpoint in self._endpoints.items() if not endpoint.identity.removed)

    async def add_identity(self, spiffe_id: SpiffeId, *, dns_names: Sequence[str] = ()) -> str:
        """Serve `spiffe_id` and return its address for `SPIFFE_ENDPOINT_SOCKET`, `unix:///...`.

        One that was removed is served again on its old socket. Raises `ConfigurationError` for an ID of another trust
        domain, one that is served already, a socket path that is too long, or one where another process listens.
        """
        if spiffe_id.trust_domain != self.authority.trust_domain:
            raise ConfigurationError(f"{spiffe_id} is not of the trust domain {self.authority.trust_domain}")
        known = self._endpoints.get(spiffe_id)
        if known is not None and not known.identity.removed:
            raise ConfigurationError(f"{spiffe_id} is declared already")
        identity = DeclaredIdentity(
            self.authority, spiffe_id, dns_names=dns_names, x509_ttl=self._x509_ttl, jwt_ttl=self._jwt_ttl
        )
        if known is not None:
            known.identity = identity
            known.servicer.assign(identity)
        else:
            self._endpoints[spiffe_id] = await self._listen(identity)
        return self.address(spiffe_id)

    def remove_identity(self, spiffe_id: SpiffeId) -> None:
        """Answer `PermissionDenied` on this identity's socket from now on, and end its streams with it."""
        self._endpoint(spiffe_id).identity.remove()

    def address(self, spiffe_id: SpiffeId) -> str:
        """Return the identity's address for `SPIFFE_ENDPOINT_SOCKET`."""
        return f"unix://{self._endpoint(spiffe_id).path}"

    def renew(self, spiffe_ids: Iterable[SpiffeId] = ()) -> None:
        """Replace the SVIDs of these identities, or of all, now: a rotation ahead of its time."""
        for spiffe_id in tuple(spiffe_ids) or self.identities:
            self._endpoint(spiffe_id).identity.renew()

    def write_server_svid(
        self, folder: Path, spiffe_id: SpiffeId, *, dns: Sequence[str] = ("localhost",), ttl: int = 86_400
    ) -> ServerSvidFiles:
        """Write a server SVID as files; see `server_svid.write_server_svid`."""
        return write_server_svid(folder, self.authority, spiffe_id, dns=dns, ttl=ttl)

    def _endpoint(self, spiffe_id: SpiffeId) -> _Endpoint:
        try:
            return self._endpoints[spiffe_id]
        except KeyError as error:
            raise ConfigurationError(f"{spiffe_id} is not declared to the embedded Workload API") from error

    async def _listen(self, identity: DeclaredIdentity) -> _Endpoint:
        path = socket_path(self.folder, identity.spiffe_id)
        claim_socket(path)
        server: _Server = grpc.aio.server(options=_OPTIONS)
        servicer = WorkloadServicer(identity)
        # grpc generates no types for this function.
        workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated without types
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            path.chmod(0o600)
        except (OSError, RuntimeError) as error:
            identity.remove()
            await server.stop(None)
            raise ConfigurationError(f"cannot listen at {path}: {error}") from error
        return _Endpoint(path=path, server=server, servicer=servicer, identity=identity)
