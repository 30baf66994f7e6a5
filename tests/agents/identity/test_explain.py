from __future__ import annotations

import pytest
from support.workload_api import listening, short_folder

from sealbus.agents.identity.workload_api import (
    Endpoint,
    WorkloadApiError,
    explain,
    is_final,
    is_momentary,
    is_withdrawal,
    status_of,
)
from sealbus.agents.identity.x509_svid import SvidError
from sealbus.envelopes.errors import Code, EnvelopeError

ENDPOINT = Endpoint("/run/agent.sock")

CASES: list[tuple[Exception, str, str]] = [
    (WorkloadApiError("PERMISSION_DENIED", ""), "PERMISSION_DENIED", "register an entry"),
    (WorkloadApiError("UNAVAILABLE", "connect: refused\n"), "UNAVAILABLE", "start the SPIRE agent"),
    (WorkloadApiError("DEADLINE_EXCEEDED", ""), "DEADLINE_EXCEEDED", "overloaded: it did not answer in time"),
    (WorkloadApiError("RESOURCE_EXHAUSTED", "slow\ndown"), "RESOURCE_EXHAUSTED", "overloaded: slow down"),
    (WorkloadApiError("UNIMPLEMENTED", ""), "UNIMPLEMENTED", "correct SPIFFE_ENDPOINT_SOCKET"),
    (WorkloadApiError("INVALID_ARGUMENT", ""), "INVALID_ARGUMENT", "correct SPIFFE_ENDPOINT_SOCKET"),
    (WorkloadApiError("INTERNAL", "two\nlines"), "INTERNAL", "two lines"),
    (SvidError("no X.509-SVID"), "REFUSED", "no X.509-SVID"),
    (EnvelopeError(Code.UNKNOWN_KEY, 7), "REFUSED", "unknown_key"),
    (RuntimeError("what\never"), "INTERNAL", "RuntimeError: what ever"),
    (RuntimeError("can't start new thread"), "INTERNAL", "this process, not the Workload API at"),
    (MemoryError(), "INTERNAL", "raise its limits of memory, processes or open files"),
    (KeyError("x"), "INTERNAL", "this process failed where it asked the Workload API"),
]


@pytest.mark.parametrize(("error", "status", "text"), CASES)
def test_one_line_names_the_socket_and_what_to_do(error: Exception, status: str, text: str) -> None:
    """For each kind of failure; the counter's word is stable."""
    line = explain(error, ENDPOINT)
    assert "unix:///run/agent.sock" in line
    assert text in line
    assert "\n" not in line
    assert status_of(error) == status


def test_only_permission_denied_withdraws() -> None:
    """Every other failure leaves what was given in force."""
    assert [is_withdrawal(error) for error, _, _ in CASES] == [True] + [False] * (len(CASES) - 1)


def test_only_another_service_is_final() -> None:
    """Everything else may change while somebody waits."""
    final = {status for error, status, _ in CASES if is_final(error)}
    assert final == {"UNIMPLEMENTED", "INVALID_ARGUMENT"}


def test_an_overload_is_told_from_an_absence() -> None:
    """gRPC says `UNAVAILABLE` to both: whether somebody listens makes the difference."""
    error = WorkloadApiError("UNAVAILABLE", "connect: too many")
    with short_folder() as folder:
        path = folder / "agent.sock"
        with listening(path):
            endpoint = Endpoint(str(path))
            assert "listens, but is overloaded or cannot reach its server: connect: too many" in explain(
                error, endpoint
            )
            busy = {status for one, status, _ in CASES if is_momentary(one, endpoint)}
            assert busy == {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "REFUSED"}
        assert "does not answer: start the SPIRE agent" in explain(error, endpoint)
        assert not is_momentary(error, endpoint)
