"""A Workload API that answers what a test tells it to, right or wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc  # type: ignore[import-untyped]  # grpc has no types
import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
from spiffe._proto import workload_pb2 as proto
from spiffe._proto import workload_pb2_grpc
from support.workload_api import short_folder

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.dev.workload_api.server import ServiceContext, WorkloadServicer
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["ScriptedWorkloadApi", "scripted_workload_api"]


_UNTIL_SECONDS = 60.0


class ScriptedWorkloadApi(WorkloadServicer):
    """The embedded servicer, whose answers pass through what a test sets here.

    `x509` and `jwt_bundles` change a response on its way; `token` makes the JWT-SVID; `status` fails every call with
    that gRPC status; `audiences` holds what JWT-SVIDs were asked for; `calls` counts by RPC.
    """

    def __init__(self, identity: DeclaredIdentity) -> None:
        super().__init__(identity)
        self.identity = identity
        self.address = ""
        self.x509: Callable[[proto.X509SVIDResponse], proto.X509SVIDResponse] = lambda response: response
        self.jwt_bundles: Callable[[proto.JWTBundlesResponse], proto.JWTBundlesResponse] = lambda response: response
        self.token: Callable[[list[str]], str] = lambda audience: identity.token(audience).token
        self.status: dict[str, str] = {}
        self.silent = False
        self.audiences: list[list[str]] = []
        self.calls: dict[str, int] = {}
        self.called = asyncio.Condition()

    async def FetchX509SVID(  # noqa: N802
        self, request: proto.X509SVIDRequest, context: ServiceContext
    ) -> AsyncIterator[proto.X509SVIDResponse]:
        await self._count("FetchX509SVID", context)
        async for response in super().FetchX509SVID(request, context):
            yield self.x509(response)

    async def FetchJWTBundles(  # noqa: N802
        self, request: proto.JWTBundlesRequest, context: ServiceContext
    ) -> AsyncIterator[proto.JWTBundlesResponse]:
        await self._count("FetchJWTBundles", context)
        async for response in super().FetchJWTBundles(request, context):
            yield self.jwt_bundles(response)

    async def FetchJWTSVID(  # noqa: N802
        self, request: proto.JWTSVIDRequest, context: ServiceContext
    ) -> proto.JWTSVIDResponse:
        audience = list(request.audience)
        self.audiences.append(audience)
        await self._count("FetchJWTSVID", context)
        return proto.JWTSVIDResponse(svids=[proto.JWTSVID(spiffe_id=request.spiffe_id, svid=self.token(audience))])

    async def until(self, rpc: str, calls: int) -> None:
        """Return once `rpc` was called `calls` times; fail if that takes too long."""
        async with asyncio.timeout(_UNTIL_SECONDS), self.called:
            await self.called.wait_for(lambda: self.calls.get(rpc, 0) >= calls)

    async def _count(self, rpc: str, context: ServiceContext) -> None:
        async with self.called:
            self.calls[rpc] = self.calls.get(rpc, 0) + 1
            self.called.notify_all()
        if self.silent:
            await asyncio.Event().wait()
        if rpc in self.status:
            await context.abort(grpc.StatusCode[self.status[rpc]], "as the test wants it")


@contextlib.asynccontextmanager
async def scripted_workload_api(
    authority: DevelopmentAuthority, name: str = "planner", *, x509_ttl: int = 60, jwt_ttl: int = 120
) -> AsyncIterator[ScriptedWorkloadApi]:
    """Serve one agent through a `ScriptedWorkloadApi`."""
    spiffe_id: SpiffeId = authority.trust_domain.id(f"/agent/{name}")
    scripted = ScriptedWorkloadApi(DeclaredIdentity(authority, spiffe_id, x509_ttl=x509_ttl, jwt_ttl=jwt_ttl))
    server = grpc.aio.server()
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(scripted, server)  # type: ignore[no-untyped-call]
    with short_folder() as folder:
        server.add_insecure_port(f"unix:{folder}/agent.sock")
        await server.start()
        scripted.address = f"unix://{folder}/agent.sock"
        try:
            yield scripted
        finally:
            await server.stop(None)
