from __future__ import annotations

import errno
import socket
import subprocess
import sys

import pytest

from sealbus.agents.dev.held_port import held_port

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a server share a port with its holder")

LISTEN = """
import asyncio, sys

async def main():
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", int(sys.argv[1])):
        print("listens", flush=True)

asyncio.run(main())
"""


def bound(port: int, *, reuse: bool) -> int:
    """Bind `port`, which is another program's here, and return the error number, or 0."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        try:
            other.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno or -1
        return 0


def test_no_other_program_is_given_a_held_port() -> None:
    with held_port() as port:
        assert bound(port, reuse=False) == errno.EADDRINUSE
    assert bound(port, reuse=False) == 0


def test_its_server_listens_in_another_process_and_again() -> None:
    with held_port() as port:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", LISTEN, str(port)], capture_output=True, text=True, check=True, timeout=60
            )
            assert done.stdout == "listens\n"


def test_nobody_answers_at_a_held_port() -> None:
    with held_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)


def test_a_chosen_port_that_a_server_has_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(OSError, match="in use"),
        held_port(server.getsockname()[1]),
    ):
        raise AssertionError


def test_two_holders_have_different_ports() -> None:
    with held_port() as one, held_port() as other:
        assert one != other
