"""An embedded SPIFFE Workload API with its own development CA; never for production.

::

    authority = DevelopmentAuthority(TrustDomain("example.org"))
    async with EmbeddedWorkloadApi(Path("/tmp/dev"), authority) as api:
        address = await api.add_identity(SpiffeId("spiffe://example.org/agent/planner"))
        async with WorkloadIdentity.connect(socket=address) as identity:
            ...

It speaks the real protocol, so that its clients run on SPIRE unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server_svid import ServerSvidFiles, write_server_svid

if TYPE_CHECKING:
    from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi

__all__ = ["DevelopmentAuthority", "EmbeddedWorkloadApi", "ServerSvidFiles", "write_server_svid"]


def __getattr__(name: str) -> object:
    # Only the server needs gRPC, which is most of the import; `sealbus.testing` needs only the authority.
    if name == "EmbeddedWorkloadApi":
        from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi

        return EmbeddedWorkloadApi
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
