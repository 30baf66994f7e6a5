"""The edge's A2A server: a card for each agent that has one, its actions as skills, its tasks as A2A tasks.

::

    JSON-RPC, HTTP+JSON -> endpoint (token, proof, rates, size) -+-> dispatcher of `a2a` -> handler -> actions of the edge
    gRPC                -> grpc_server (the same)               -'

The package `a2a` frames and parses. The caller is verified before the package sees a request, and it never sees a token.
"""

from __future__ import annotations

import os

# The package's spans would hold what clients sent. The edge has its own spans of requests and messages.
os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")
