"""Blocking calls to a Workload API, as raw as the protocol gives them, through `spiffe`'s client.

`spiffe` parses what it receives in ways that do not fit here: it folds repeated key IDs of a JWT bundle, uses keys that
are marked for something else, hides the bytes, and ends a source for ever at the first response that it cannot parse.
So its client is used for address, channel and security header, and the responses are handed on unparsed; who receives
them judges them. The version of `spiffe` is pinned because of what is overridden here.

Everything blocks: call it from threads (`sealbus.agents.identity.threads`). Not to be used on after a fork, which gRPC
does not survive: a child process connects anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, cast

import grpc  # type: ignore[import-untyped]  # grpc has no types
from spiffe import WorkloadApiClient
from spiffe._proto import workload_pb2 as proto
from spiffe.errors import ArgumentError
from spiffe.workloadapi.grpc.header_manipulator_client_interceptor import header_adder_interceptor
from spiffe.workloadapi.workload_api_client import (
    WORKLOAD_API_HEADER_KEY,
    WORKLOAD_API_HEADER_VALUE,
    StreamCancelHandler,
)

from sealbus.agents.identity.endpoint import Endpoint
from sealbus.envelopes.keys import PublicKey
from sealbus.envelopes.spiffe_id import SpiffeId

__all__ = ["RawClient", "StreamCancelHandler", "WorkloadApiError"]

Response_co = TypeVar("Response_co", covariant=True)

_CHANNEL_OPTIONS = (
    # gRPC's own waiting grows to two minutes; ours is in the supervisor, which is to find a restarted agent soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A rebuilt client gets a connection of its own, not one from gRPC's pool that may be in backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # Four megabytes is gRPC's default, written down: what an agent may make us hold at once.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)


class WorkloadApiError(Exception):
    """A call to the Workload API ended with a gRPC status; `status` is its name, such as `PERMISSION_DENIED`."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class _Stream(Protocol[Response_co]):
    def __iter__(self) -> Iterator[Response_co]: ...

    def __next__(self) -> Response_co: ...

    def cancel(self) -> bool: ...


class RawClient(WorkloadApiClient):
    """One connection to a Workload API. Close it after use; closing ends every call that is still under way."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Raise `WorkloadApiError` (`UNAVAILABLE`) if there is no socket."""
        try:
            super().__init__(str(endpoint))
        except ArgumentError as error:
            raise WorkloadApiError("UNAVAILABLE", str(error)) from error

    def _get_spiffe_grpc_channel(self) -> grpc.Channel:
        channel = grpc.insecure_channel(self._grpc_target(self._config.spiffe_endpoint_socket), _CHANNEL_OPTIONS)
        header = header_adder_interceptor(WORKLOAD_API_HEADER_KEY, WORKLOAD_API_HEADER_VALUE)
        return grpc.intercept_channel(channel, header)

    def watch_x509(self, deliver: Callable[[proto.X509SVIDResponse], None], cancel: StreamCancelHandler) -> None:
        """Call `deliver` with each response of `FetchX509SVID` until the stream ends or `cancel` is used.

        Returns at the end of the stream; raises `WorkloadApiError` for every other end, and what `deliver` raises.
        """
        with _failures():
            _pump(self._spiffe_workload_api_stub.FetchX509SVID(proto.X509SVIDRequest()), deliver, cancel)

    def watch_jwt_bundles(
        self, deliver: Callable[[proto.JWTBundlesResponse], None], cancel: StreamCancelHandler
    ) -> None:
        """Call `deliver` with each response of `FetchJWTBundles`; otherwise like `watch_x509`."""
        with _failures():
            _pump(self._spiffe_workload_api_stub.FetchJWTBundles(proto.JWTBundlesRequest()), deliver, cancel)

    def fetch_token(self, spiffe_id: SpiffeId, key: PublicKey, *, timeout: float) -> str:
        """Return a JWT-SVID of `spiffe_id` whose one audience is `key`'s thumbprint, waiting at most `timeout` seconds.

        There is no way to ask for another audience here: whoever could choose it could have a foreign key vouched for
        (SPEC.md section 5). Nothing about the token is verified. Raises `WorkloadApiError`.
        """
        request = proto.JWTSVIDRequest(audience=[key.thumbprint], spiffe_id=str(spiffe_id))
        with _failures():
            response = cast(
                "proto.JWTSVIDResponse", self._spiffe_workload_api_stub.FetchJWTSVID(request, timeout=timeout)
            )
        for svid in response.svids:
            if svid.spiffe_id == str(spiffe_id):
                return svid.svid
        raise WorkloadApiError("NOT_FOUND", "the response holds no JWT-SVID of this SPIFFE ID")


def _pump(stream: _Stream[Response_co], deliver: Callable[[Response_co], None], cancel: StreamCancelHandler) -> None:
    cancel.set_iterator(stream)
    for response in stream:
        if cancel.is_cancelled():
            return
        deliver(response)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Turn gRPC's errors, whose types are not published, into `WorkloadApiError`."""
    try:
        yield
    except grpc.RpcError as error:
        code, details = getattr(error, "code", None), getattr(error, "details", None)
        status = str(getattr(code(), "name", "UNKNOWN")) if callable(code) else "UNKNOWN"
        raise WorkloadApiError(status, str(details()) if callable(details) else "") from error
