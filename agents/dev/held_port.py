"""A loopback port that is held from the moment its number is known until its server listens, and between restarts."""

from __future__ import annotations

import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def held_port(port: int = 0) -> Generator[int, None, None]:
    """Hold `port` of 127.0.0.1 and yield its number; 0 holds a port that the system chooses.

    Until the end the system gives this port to no other program. A server that sets SO_REUSEADDR, as servers do, can listen
    on it meanwhile, in this process or another, and can stop and listen again. Raises `OSError` if `port` is in use. Only
    Linux lets a server share a port with the socket that holds it; on other systems the port is free again once it is
    yielded.
    """
    with socket.socket() as holder:
        if port:
            # A port that a former server has just left is free.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        # Only after `bind`, so that two holders are never given the same port.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        number: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield number
