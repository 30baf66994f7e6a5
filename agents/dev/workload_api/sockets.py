"""Where the embedded Workload API listens: one unix socket per identity in a folder that only its owner may enter."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.spiffe_id import SpiffeId

__all__ = ["MAX_SOCKET_PATH", "claim_socket", "prepare_folder", "socket_path"]

MAX_SOCKET_PATH = 107
"""Bytes of `sun_path` on Linux, less the closing zero byte."""

_CONNECT_SECONDS = 1.0


def socket_path(folder: Path, spiffe_id: SpiffeId) -> Path:
    """Return the absolute socket path of an identity: its SPIFFE path with `+`, which no SPIFFE ID holds, for `/`.

    Raises `ConfigurationError` if it is longer than the kernel allows.
    """
    path = folder.absolute() / f"{spiffe_id.path[1:].replace('/', '+')}.sock"
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH:
        raise ConfigurationError(
            f"socket path {path} has {length} bytes, {MAX_SOCKET_PATH} are allowed: choose a shorter state folder"
        )
    return path


def prepare_folder(folder: Path) -> None:
    """Make `folder` with mode 0700, or take one that is already there and ours; raise `ConfigurationError` if not.

    The mode of the folder, not of the sockets, keeps others out: between `bind` and `chmod` a socket is as open as the
    umask lets it be.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigurationError(
                f"{folder} is not a folder of this user: remove it, or choose another state folder"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be used for sockets: {error.strerror}") from error


def claim_socket(path: Path) -> None:
    """Remove a socket that a dead process left at `path`; raise `ConfigurationError` if someone still listens there."""
    if not os.path.lexists(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink()
            return
    raise ConfigurationError(f"a Workload API already listens at {path}: stop it, or choose another state folder")
