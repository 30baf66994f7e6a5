"""Where the Workload API listens: `SPIFFE_ENDPOINT_SOCKET`, or what the settings say (SPIFFE_Workload_Endpoint.md)."""

from __future__ import annotations

import os
import socket as sockets
import stat
from dataclasses import dataclass
from pathlib import Path

from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable

__all__ = ["ENVIRONMENT_VARIABLE", "Endpoint"]

ENVIRONMENT_VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
_SCHEME = "unix:"


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
        """Return the endpoint that `socket` names, or else `SPIFFE_ENDPOINT_SOCKET`: `unix:///path` or a plain path.

        Raises `ConfigurationError` where neither is set, or for another scheme (`tcp:` is not supported by `spiffe`).
        """
        text = socket or os.environ.get(ENVIRONMENT_VARIABLE, "")
        if not text:
            raise ConfigurationError(
                f"no Workload API socket: set {ENVIRONMENT_VARIABLE}=unix:///path/to/agent.sock, or run `sealbus dev`"
            )
        if text.startswith(_SCHEME):
            # unix:///run/agent.sock, unix:/run/agent.sock: any number of slashes, as gRPC and `spiffe` read it.
            text = "/" + text.removeprefix(_SCHEME).lstrip("/")
        elif ":" in text.split("/", 1)[0]:
            raise ConfigurationError(f"Workload API socket {text!r}: only unix sockets are supported, unix:///path")
        return cls(text)

    def check(self) -> None:
        """Raise `IdentityUnavailable` with one line that says what to do if nobody can be behind this socket.

        That somebody answers there is not known afterwards.
        """
        try:
            mode = Path(self.path).stat().st_mode
        except OSError as error:
            raise IdentityUnavailable(
                f"no Workload API at {self}: {error.strerror}; start the SPIRE agent or `sealbus dev` "
                f"(with --agent for a name that it does not know), or correct {ENVIRONMENT_VARIABLE}"
            ) from error
        if not stat.S_ISSOCK(mode):
            raise IdentityUnavailable(f"no Workload API at {self}: not a socket; correct {ENVIRONMENT_VARIABLE}")
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise IdentityUnavailable(f"no access to the Workload API at {self}: run as the user that owns the socket")

    def absence(self) -> str:
        """Return in one line why nobody is behind this socket; empty if somebody listens there, however busy.

        The kernel knows it at once. gRPC tells an agent that is not there by the same status as one that is overloaded.
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
                # More wait to be accepted than the listener's queue holds.
                return ""
            except OSError:
                return f"the Workload API at {self} does not answer: start the SPIRE agent or `sealbus dev`"
        return ""
