"""The client of `bench/console_server.py`: reads streams of a console, and says how late each decision came.

The first line of its input has the port and a cookie for each stream. It says when all are open; then a line asks for the
milliseconds since the last one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime

__all__: list[str] = []

LINE = 1 << 22


async def main() -> None:
    """Read until the input ends."""
    wanted = json.loads(sys.stdin.readline())
    late: list[float] = []
    opened = asyncio.Semaphore(0)

    async def follow(cookie: str, *, timed: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", wanted["port"], limit=LINE)
        host = f"127.0.0.1:{wanted['port']}"
        writer.write(f"GET /api/live HTTP/1.1\r\nHost: {host}\r\nCookie: sealbus_console={cookie}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head.partition(b"\r\n")[0].decode())
        opened.release()
        name = b""
        while line := await reader.readline():
            if line.startswith(b"event: "):
                name = line
            elif timed and name == b"event: decisions\n" and line.startswith(b"data: "):
                now = datetime.now(UTC)
                rows = json.loads(line[6:])["rows"]
                late.extend((now - datetime.fromisoformat(row["time"])).total_seconds() * 1_000 for row in rows)
        raise ConnectionError("a stream has ended")

    async with asyncio.TaskGroup() as group:
        following = [
            group.create_task(follow(cookie, timed=not number)) for number, cookie in enumerate(wanted["cookies"])
        ]
        for _ in following:
            await opened.acquire()
        print("open", flush=True)
        while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            print(json.dumps(late), flush=True)
            late.clear()
        for one in following:
            one.cancel()


asyncio.run(main())
