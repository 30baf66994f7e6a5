"""Failures of the Workload API in one line that names the socket and what to do."""

from __future__ import annotations

import os

from sealbus.agents.identity.client import WorkloadApiError
from sealbus.agents.identity.endpoint import ENVIRONMENT_VARIABLE, Endpoint
from sealbus.agents.identity.x509_svid import SvidError
from sealbus.envelopes.errors import EnvelopeError, SealError

__all__ = ["explain", "is_final", "is_momentary", "is_withdrawal", "status_of"]

_ANOTHER_SERVICE = frozenset({"INVALID_ARGUMENT", "UNIMPLEMENTED"})
_BUSY = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
_OVERLOADED = "listens, but is overloaded"


def is_withdrawal(error: Exception) -> bool:
    """Say whether the Workload API said with `error` that what it gave before may not be used any more.

    SPIFFE_Workload_API.md sections 5.2.1, 5.2.2 and 6.2.2.
    """
    return isinstance(error, WorkloadApiError) and error.status == "PERMISSION_DENIED"


def is_final(error: Exception) -> bool:
    """Say whether no waiting helps after `error`: whoever listens there is no Workload API."""
    return isinstance(error, WorkloadApiError) and error.status in _ANOTHER_SERVICE


def is_momentary(error: Exception, endpoint: Endpoint) -> bool:
    """Say whether `error` may be over in seconds with nobody's help: an overload, or keys that are still on their way."""
    if isinstance(error, WorkloadApiError):
        return error.status in _BUSY and not endpoint.absence()
    # A JWT-SVID that does not verify may only have overtaken the bundle that holds its key.
    return isinstance(error, EnvelopeError)


def status_of(error: Exception) -> str:
    """Return a short, stable word for a failure, for counters: gRPC's status, `REFUSED`, or `INTERNAL`."""
    if isinstance(error, WorkloadApiError):
        return error.status
    return "REFUSED" if isinstance(error, SvidError | EnvelopeError | SealError) else "INTERNAL"


def explain(error: Exception, endpoint: Endpoint) -> str:
    """Return one line about `error` for whoever runs the workload; it holds no token and no key."""
    where = f"the Workload API at {endpoint}"
    if isinstance(error, WorkloadApiError):
        return _explain_status(error, where, endpoint)
    if isinstance(error, SvidError):
        return f"{where}: {error}"
    if isinstance(error, EnvelopeError):
        return f"{where} gave a JWT-SVID that does not verify ({error}): check its bundles and this host's clock"
    return f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _explain_status(error: WorkloadApiError, where: str, endpoint: Endpoint) -> str:
    match error.status:
        case "PERMISSION_DENIED":
            return (
                f"{where} has no identity for this workload (uid {os.geteuid()}): register an entry for it, "
                "or declare it to `sealbus dev` with --agent"
            )
        case "UNAVAILABLE":
            return endpoint.absence() or f"{where} {_OVERLOADED} or cannot reach its server: {_detail(error)}"
        case "DEADLINE_EXCEEDED":
            return f"{where} {_OVERLOADED}: it did not answer in time"
        case "RESOURCE_EXHAUSTED":
            return f"{where} {_OVERLOADED}: {_detail(error)}"
        case "INVALID_ARGUMENT" | "UNIMPLEMENTED":
            return f"{where} is not a SPIFFE Workload API ({error.status}): correct {ENVIRONMENT_VARIABLE}"
        case status:
            return f"{where} failed: {status} {_detail(error)}"


def _detail(error: WorkloadApiError) -> str:
    return " ".join(error.detail.split())[:200]
