"""The identity of a workload: X.509-SVIDs, JWT-SVIDs and trust bundles from any SPIFFE Workload API, always current.

::

    async with WorkloadIdentity.connect() as identity:        # at SPIFFE_ENDPOINT_SOCKET
        identity.spiffe_id                                    # spiffe://example.org/agent/planner
        identity.sealer()                                     # this process's key, vouched for by a JWT-SVID
        identity.x509()                                       # for the connection to NATS
"""

from __future__ import annotations

from sealbus.agents.identity.identity import IdentityStatus, WorkloadIdentity
from sealbus.agents.identity.workload_api import ENVIRONMENT_VARIABLE, Endpoint

__all__ = ["ENVIRONMENT_VARIABLE", "Endpoint", "IdentityStatus", "WorkloadIdentity"]
