"""The embedded Workload API over gRPC, in place of a production SPIRE agent, for `sealbus dev` and the tests.

It answers for one declared identity on each unix socket (SPIFFE_Workload_API.md, SPIFFE_Workload_Endpoint.md), in a folder
that only its owner may enter.

It uses the messages of `spiffe._proto`, because newly generated stubs would register the same symbols twice in one process.
`FetchWITSVID` and `FetchWITBundles` are missing there, so gRPC itself answers `Unimplemented`, as the standard requires of an
endpoint without that profile.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol, Self

import grpc  # type: ignore[import-untyped]  # grpc has no types
import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
from google.protobuf import json_format, struct_pb2
from spiffe._proto import workload_pb2 as proto
from spiffe._proto import workload_pb2_grpc

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.dev.workload_api.jwt_keys import TokenError
from sealbus.agents.files import file_errors
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_concurrent_streams", 1_000))

_SECURITY_HEADER = ("workload.spiffe.io", "true")
"""The header by which a caller shows that it means to call a Workload API: SPIFFE_Workload_Endpoint.md section 3."""

MAX_SOCKET_PATH = 107
"""Bytes of `sun_path` on Linux, less the terminating zero byte."""

_CONNECT_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class _Endpoint:
    path: Path
    server: grpc.aio.Server
    servicer: WorkloadServicer
    identity: DeclaredIdentity


class EmbeddedWorkloadApi:
    """The SPIFFE Workload API on one unix socket per declared identity, as an async context manager.

    Sockets have mode 0600 in `folder`, which gets mode 0700: a process that may open a socket is that workload, without
    further attestation. X.509-SVIDs live `x509_ttl` seconds and are replaced at 45 % of that, JWT-SVIDs `jwt_ttl` seconds and
    are replaced at half, so that rotation happens all the time. Identities come and go while it runs. All sockets and streams
    end with the context.
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

    async def __aexit__(self, *_: object) -> None:
        while self._endpoints:
            endpoint = self._endpoints.popitem()[1]
            # The server stops first: a client must see that the agent is gone, and not that its identity was removed.
            await endpoint.server.stop(None)
            endpoint.identity.remove()
            endpoint.path.unlink(missing_ok=True)

    @property
    def identities(self) -> tuple[SpiffeId, ...]:
        """The identities served now, in the order in which they were declared."""
        return tuple(name for name, endpoint in self._endpoints.items() if not endpoint.identity.removed)

    async def add_identity(self, spiffe_id: SpiffeId, *, dns_names: Sequence[str] = ()) -> str:
        """Serve `spiffe_id` and return its address for `SPIFFE_ENDPOINT_SOCKET`, `unix:///...`.

        A removed identity is served again on its old socket. Raises `ConfigurationError` for an ID of another trust domain or
        one that is already served, and for a socket path that is too long or on which another process listens.
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
        """Answer `PermissionDenied` on this identity's socket from now on, and end its streams with that status."""
        self._endpoint(spiffe_id).identity.remove()

    def address(self, spiffe_id: SpiffeId) -> str:
        """Return the identity's address for `SPIFFE_ENDPOINT_SOCKET`."""
        return f"unix://{self._endpoint(spiffe_id).path}"

    def renew(self, spiffe_ids: Iterable[SpiffeId] = ()) -> None:
        """Replace the SVIDs of these identities, or of all, now."""
        for spiffe_id in tuple(spiffe_ids) or self.identities:
            self._endpoint(spiffe_id).identity.renew()

    def _endpoint(self, spiffe_id: SpiffeId) -> _Endpoint:
        try:
            return self._endpoints[spiffe_id]
        except KeyError as error:
            raise ConfigurationError(f"{spiffe_id} is not declared in the embedded Workload API") from error

    async def _listen(self, identity: DeclaredIdentity) -> _Endpoint:
        path = socket_path(self.folder, identity.spiffe_id)
        claim_socket(path)
        server: grpc.aio.Server = grpc.aio.server(options=_OPTIONS)
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


class ServiceContext(Protocol):
    """The part of gRPC's servicer context that is used here; `abort` raises."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the headers that the caller sent."""

    async def abort(self, code: object, details: str) -> NoReturn:
        """End the call with a status."""


class WorkloadServicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """A servicer that answers for exactly one identity, for every caller: the socket's file mode is the attestation."""

    def __init__(self, identity: DeclaredIdentity) -> None:
        self._identity = identity

    def assign(self, identity: DeclaredIdentity) -> None:
        """Answer for `identity`, a removed identity that is declared again, from the next message of each stream on."""
        self._identity = identity

    async def FetchX509SVID(  # noqa: N802 - names of the protocol
        self, request: proto.X509SVIDRequest, context: ServiceContext
    ) -> AsyncIterator[proto.X509SVIDResponse]:
        """Stream the X.509-SVID with all bundles, again at each renewal and each change of a bundle."""
        while True:
            await self._admit(context)
            version = self._identity.version
            yield self._x509_response()
            await self._identity.next_svid(version)

    async def FetchX509Bundles(  # noqa: N802  the names of the protocol
        self, request: proto.X509BundlesRequest, context: ServiceContext
    ) -> AsyncIterator[proto.X509BundlesResponse]:
        """Stream the X.509 bundles, again at each change."""
        while True:
            await self._admit(context)
            version = self._identity.version
            bundles = self._identity.authority.x509_bundles()
            yield proto.X509BundlesResponse(
                bundles={_id_of(name): b"".join(certificates) for name, certificates in bundles.items()}
            )
            await self._identity.next_version(version)

    async def FetchJWTSVID(  # noqa: N802  the names of the protocol
        self, request: proto.JWTSVIDRequest, context: ServiceContext
    ) -> proto.JWTSVIDResponse:
        """Return a JWT-SVID for any requested audiences, as SPIRE does; a requested SPIFFE ID must be its own."""
        await self._admit(context)
        own = str(self._identity.spiffe_id)
        audience = [value for value in request.audience if value]
        if not audience:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "audience must be specified")
        if request.spiffe_id not in ("", own):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        token = self._identity.token(audience).token
        return proto.JWTSVIDResponse(svids=[proto.JWTSVID(spiffe_id=own, svid=token)])

    async def FetchJWTBundles(  # noqa: N802  the names of the protocol
        self, request: proto.JWTBundlesRequest, context: ServiceContext
    ) -> AsyncIterator[proto.JWTBundlesResponse]:
        """Stream the JWT bundles, again at each change."""
        while True:
            await self._admit(context)
            version = self._identity.version
            bundles = self._identity.authority.jwt_bundles()
            yield proto.JWTBundlesResponse(bundles={_id_of(name): keys for name, keys in bundles.items()})
            await self._identity.next_version(version)

    async def ValidateJWTSVID(  # noqa: N802  the names of the protocol
        self, request: proto.ValidateJWTSVIDRequest, context: ServiceContext
    ) -> proto.ValidateJWTSVIDResponse:
        """Return subject and claims of a valid JWT-SVID of this or a federated trust domain."""
        await self._admit(context)
        if not request.audience or not request.svid:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "audience and svid must be specified")
        try:
            claims = self._identity.authority.check(request.svid, request.audience)
        except TokenError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        document = json_format.ParseDict(claims, struct_pb2.Struct())
        return proto.ValidateJWTSVIDResponse(spiffe_id=str(claims["sub"]), claims=document)

    async def _admit(self, context: ServiceContext) -> None:
        if _SECURITY_HEADER not in (tuple(pair) for pair in context.invocation_metadata() or ()):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if self._identity.removed:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")

    def _x509_response(self) -> proto.X509SVIDResponse:
        svid = self._identity.svid()
        bundles = self._identity.authority.x509_bundles()
        own = bundles.pop(self._identity.spiffe_id.trust_domain)
        return proto.X509SVIDResponse(
            svids=[
                proto.X509SVID(
                    spiffe_id=str(svid.spiffe_id),
                    x509_svid=b"".join(svid.chain),
                    x509_svid_key=svid.key,
                    bundle=b"".join(own),
                )
            ],
            federated_bundles={_id_of(name): b"".join(certificates) for name, certificates in bundles.items()},
        )


def _id_of(trust_domain: TrustDomain) -> str:
    return f"spiffe://{trust_domain}"


def socket_path(folder: Path, spiffe_id: SpiffeId) -> Path:
    """Return the absolute socket path of an identity: its SPIFFE path with `+`, which no SPIFFE ID holds, for `/`.

    Raises `ConfigurationError` if it is longer than the kernel allows.
    """
    path = folder.absolute() / f"{spiffe_id.path[1:].replace('/', '+')}.sock"
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise ConfigurationError(
            f"socket path {path} has {length} bytes, {MAX_SOCKET_PATH} are allowed: choose a shorter state folder"
        )
    return path


def prepare_folder(folder: Path) -> None:
    """Make `folder` with mode 0700, or use an existing folder of this user; raise `ConfigurationError` otherwise.

    The mode of the folder keeps other users out, because between `bind` and `chmod` a socket is as open as the umask allows.
    """
    with file_errors(f"{folder} cannot be used for sockets"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ConfigurationError(
                f"{folder} is not a folder of this user: remove it, or choose another state folder"
            )
        folder.chmod(0o700)


def claim_socket(path: Path) -> None:
    """Remove a socket that a dead process left at `path`; raise `ConfigurationError` if a process still listens there."""
    if not os.path.lexists(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink()
            return
    raise ConfigurationError(f"a Workload API already listens at {path}: stop it, or choose another state folder")
