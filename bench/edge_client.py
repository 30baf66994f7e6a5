"""The client of `bench/edge.py`, a separate process so that its work is not counted as the edge's.

`edge_client.py PORT` reads one request per line as base64, and writes one line for each: the seconds from the first byte sent
to the last byte received.
"""

from __future__ import annotations

import base64
import socket
import sys
import time

__all__: list[str] = []


def main() -> None:
    """Send one request per line."""
    connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for line in sys.stdin.buffer:
        request = base64.b64decode(line)
        started = time.perf_counter()
        connection.sendall(request)
        answer = b""
        while not _complete(answer):
            more = connection.recv(65_536)
            if not more:
                raise ConnectionError("the edge closed the connection")
            answer += more
        taken = time.perf_counter() - started
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(answer.partition(b"\r\n")[0].decode())
        print(taken, flush=True)


def _complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length)


main()
