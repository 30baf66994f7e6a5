"""The SPIFFE Workload API over gRPC for one declared identity (SPIFFE_Workload_API.md, SPIFFE_Workload_Endpoint.md).

The messages are those of `spiffe._proto`: stubs generated anew would register the same symbols twice in one process.
`FetchWITSVID` and `FetchWITBundles` are not in them, so that gRPC itself answers `Unimplemented`, as the standard asks
of an endpoint without that profile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NoReturn, Protocol

import grpc  # type: ignore[import-untyped]  # grpc has no types
from google.protobuf import json_format, struct_pb2
from spiffe._proto import workload_pb2 as proto
from spiffe._proto import workload_pb2_grpc

from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.dev.workload_api.tokens import TokenError
from sealbus.envelopes.spiffe_id import TrustDomain

__all__ = ["ServiceContext", "WorkloadServicer"]

_SECURITY_HEADER = ("workload.spiffe.io", "true")
"""Proves that a caller knows that it speaks to a Workload API: SPIFFE_Workload_Endpoint.md section 3."""


class ServiceContext(Protocol):
    """What of gRPC's servicer context is used here; `abort` raises."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return the headers that the caller sent."""

    async def abort(self, code: object, details: str) -> NoReturn:
        """End the call with a status."""


class WorkloadServicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Answer for exactly one identity, whoever asks: the socket's file mode is the attestation."""

    def __init__(self, identity: DeclaredIdentity) -> None:
        self._identity = identity

    def assign(self, identity: DeclaredIdentity) -> None:
        """Answer for `identity` from the next message of each stream on: one that was removed is declared again."""
        self._identity = identity

    async def FetchX509SVID(  # noqa: N802 - names of the protocol
        self, request: proto.X509SVIDRequest, context: ServiceContext
    ) -> AsyncIterator[proto.X509SVIDResponse]:
        """Stream the X.509-SVID with all bundles, anew at each renewal and each change of a bundle."""
        while True:
            await self._admit(context)
            version = self._identity.version
            yield self._x509_response()
            await self._identity.next_svid(version)

    async def FetchX509Bundles(  # noqa: N802  the names of the protocol
        self, request: proto.X509BundlesRequest, context: ServiceContext
    ) -> AsyncIterator[proto.X509BundlesResponse]:
        """Stream the X.509 bundles, anew at each change."""
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
        """Return a JWT-SVID for the audiences asked for: any, as SPIRE does; the SPIFFE ID must be its own, or none."""
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
        """Stream the JWT bundles, anew at each change."""
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
