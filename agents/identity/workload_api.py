"""Blocking calls to a Workload API, which return unparsed responses; and its failures as one line with advice.

The Workload API listens at the address in `SPIFFE_ENDPOINT_SOCKET` or the settings (SPIFFE_Workload_Endpoint.md).

The parser of `spiffe` does not fit here: it folds repeated key IDs of a JWT bundle, uses keys that are marked for another
use, hides the bytes, and ends a source for ever at the first response that it cannot parse. So this module uses the client of
`spiffe` only for address, channel and security header, and returns the responses unparsed for the callers to check. The
version of `spiffe` is pinned because this module overrides private parts of it.

All calls block: make them from threads (`sealbus.agents.identity.threads`). gRPC does not survive a fork: a child process
must connect again.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
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

from sealbus.agents.identity.x509_svid import SvidError
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError, IdentityUnavailable, SealError
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.spiffe_id import SpiffeId

Response_co = TypeVar("Response_co", covariant=True)

_CHANNEL_OPTIONS = (
    # gRPC's own backoff grows to two minutes; `Upkeep` has its own, and must find a restarted agent soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A rebuilt client gets its own connection, not one from gRPC's pool that may be in backoff.
    ("grpc.use_local_subchannel_pool", 1),
    # The most that an agent can make us hold at once; four megabytes is also gRPC's default.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)

ENVIRONMENT_VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
_SCHEME = "unix:"

_ANOTHER_SERVICE = frozenset({"INVALID_ARGUMENT", "UNIMPLEMENTED"})
_BUSY = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
_OVERLOADED = "listens, but is overloaded"


class WorkloadApiError(Exception):
    """A call to the Workload API ended with a gRPC status; `status` is its name, such as `PERMISSION_DENIED`."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class _ResponseStream(Protocol[Response_co]):
    def __iter__(self) -> Iterator[Response_co]: ...

    def __next__(self) -> Response_co: ...

    def cancel(self) -> bool: ...


class RawClient(WorkloadApiClient):
    """One connection to a Workload API. Close it after use; closing ends every open call."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Open the client; raise `WorkloadApiError` (`UNAVAILABLE`) if there is no socket."""
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

        Returns at the end of the stream; raises `WorkloadApiError` for any other end, and exceptions of `deliver`.
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

        With a free choice of the audience a caller could have a foreign key vouched for (SPEC.md section 5): the only other
        audiences are URLs (`fetch_assertion`). Verifies nothing about the token. Raises `WorkloadApiError`.
        """
        return self._fetch(spiffe_id, key.thumbprint, timeout)

    def fetch_assertion(self, spiffe_id: SpiffeId, url: str, *, timeout: float) -> str:
        """Return a JWT-SVID of `spiffe_id` to show at `url` alone, an http or https URL; otherwise as `fetch_token`.

        Raises `ValueError` for any other text: an audience that names a key would vouch for that key.
        """
        if not url.startswith(("https://", "http://")):
            raise ValueError("not a URL")
        return self._fetch(spiffe_id, url, timeout)

    def _fetch(self, spiffe_id: SpiffeId, audience: str, timeout: float) -> str:
        request = proto.JWTSVIDRequest(audience=[audience], spiffe_id=str(spiffe_id))
        with _failures():
            response = cast(
                "proto.JWTSVIDResponse", self._spiffe_workload_api_stub.FetchJWTSVID(request, timeout=timeout)
            )
        for svid in response.svids:
            if svid.spiffe_id == str(spiffe_id):
                return svid.svid
        raise WorkloadApiError("NOT_FOUND", "the response holds no JWT-SVID of this SPIFFE ID")


def _pump(
    stream: _ResponseStream[Response_co], deliver: Callable[[Response_co], None], cancel: StreamCancelHandler
) -> None:
    cancel.set_iterator(stream)
    for response in stream:
        if cancel.is_cancelled():
            return
        deliver(response)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Raise gRPC's errors, whose types are not public, as `WorkloadApiError`."""
    try:
        yield
    except grpc.RpcError as error:
        code, details = getattr(error, "code", None), getattr(error, "details", None)
        status = str(getattr(code(), "name", "UNKNOWN")) if callable(code) else "UNKNOWN"
        raise WorkloadApiError(status, str(details()) if callable(details) else "") from error


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The absolute path of a Workload API's unix socket. Raises `ConfigurationError` for another path."""

    path: str

    def __post_init__(self) -> None:
        if not Path(self.path).is_absolute() or any(character in self.path for character in "\0?#%"):
            raise ConfigurationError(f"Workload API socket {self.path!r}: an absolute path is needed")

    def __str__(self) -> str:
        return f"unix://{self.path}"

    @classmethod
    def find(cls, socket: str | None = None) -> Endpoint:
        """Return the endpoint in `socket`, or else in `SPIFFE_ENDPOINT_SOCKET`: `unix:///path` or a plain path.

        Raises `ConfigurationError` if neither is set, or for another scheme (`tcp:` is not supported by `spiffe`).
        """
        text = socket or os.environ.get(ENVIRONMENT_VARIABLE, "")
        if not text:
            raise ConfigurationError(
                f"no Workload API socket: set {ENVIRONMENT_VARIABLE}=unix:///path/to/agent.sock, or run `sealbus dev`"
            )
        if text.startswith(_SCHEME):
            # unix:///run/agent.sock, unix:/run/agent.sock: any number of slashes, as in gRPC and `spiffe`.
            text = "/" + text.removeprefix(_SCHEME).lstrip("/")
        elif ":" in text.split("/", 1)[0]:
            raise ConfigurationError(f"Workload API socket {text!r}: only unix sockets are supported, unix:///path")
        return cls(text)

    def check(self) -> None:
        """Raise `IdentityUnavailable`, with one line of advice, if no process can be listening at this socket.

        A return does not mean that a process answers there.
        """
        try:
            mode = Path(self.path).stat().st_mode
        except OSError as error:
            raise IdentityUnavailable(
                f"no Workload API at {self}: {error.strerror}; start the SPIRE agent or `sealbus dev` "
                f"(with --agent for an undeclared name), or correct {ENVIRONMENT_VARIABLE}"
            ) from error
        if not stat.S_ISSOCK(mode):
            raise IdentityUnavailable(f"no Workload API at {self}: not a socket; correct {ENVIRONMENT_VARIABLE}")
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise IdentityUnavailable(f"no access to the Workload API at {self}: run as the user that owns the socket")

    def absence(self) -> str:
        """Return in one line why no process listens at this socket; empty if a process does, even a busy one.

        The kernel answers at once. gRPC reports an absent agent with the same status as an overloaded one.
        """
        try:
            self.check()
        except IdentityUnavailable as error:
            return error.detail
        with sockets.socket(sockets.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.path)
            except BlockingIOError:
                # More connections are waiting than the listener's queue holds.
                return ""
            except OSError:
                return f"the Workload API at {self} does not answer: start the SPIRE agent or `sealbus dev`"
        return ""


def is_withdrawal(error: Exception) -> bool:
    """Return whether `error` withdraws the values that the Workload API gave before.

    SPIFFE_Workload_API.md sections 5.2.1, 5.2.2 and 6.2.2.
    """
    return isinstance(error, WorkloadApiError) and error.status == "PERMISSION_DENIED"


def is_final(error: Exception) -> bool:
    """Return whether waiting after `error` is in vain: the listener is not a Workload API."""
    return isinstance(error, WorkloadApiError) and error.status in _ANOTHER_SERVICE


def is_momentary(error: Exception, endpoint: Endpoint) -> bool:
    """Return whether `error` may end within seconds without help: an overload, or keys that have not arrived yet."""
    if isinstance(error, WorkloadApiError):
        return error.status in _BUSY and not endpoint.absence()
    # A JWT-SVID that does not verify may only have overtaken the bundle that holds its key.
    return isinstance(error, EnvelopeError)


def status_of(error: Exception) -> str:
    """Return a stable word for a failure, for counters: gRPC's status, `REFUSED`, or `INTERNAL`."""
    if isinstance(error, WorkloadApiError):
        return error.status
    return "REFUSED" if isinstance(error, SvidError | EnvelopeError | SealError) else "INTERNAL"


def explain(error: Exception, endpoint: Endpoint) -> str:
    """Return one line about `error` for the operator of the workload; it holds no token and no key."""
    where = f"the Workload API at {endpoint}"
    if isinstance(error, WorkloadApiError):
        return _explain_status(error, where, endpoint)
    if isinstance(error, SvidError):
        return f"{where}: {error}"
    if isinstance(error, EnvelopeError):
        return f"{where} gave a JWT-SVID that does not verify ({error}): check its bundles and this host's clock"
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if isinstance(error, MemoryError | RuntimeError | OSError):
        # A RuntimeError: Python raises it if it cannot start a thread.
        return f"this process, not {where}, failed ({cause}): raise its limits of memory, processes or open files"
    return f"this process failed where it asked {where}: {cause}"


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
