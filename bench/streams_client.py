"""The client of `bench/streams.py` and `bench/a2a.py`: opens streams, says how many are, and holds them until the end."""

from __future__ import annotations

import asyncio
import json
import sys

__all__: list[str] = []

AT_A_TIME = 64


async def main() -> None:
    """Open what the first line of the input asks for."""
    wanted = json.loads(sys.stdin.readline())
    gate, held = asyncio.Semaphore(AT_A_TIME), list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    async def follow(path: str) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", wanted["port"], limit=4_096)
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {wanted['token']}\r\n"
                f"A2A-Version: 1.0\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ConnectionError(head.partition(b"\r\n")[0].decode())
            await reader.readuntil(wanted["first"].encode())
            held.append((reader, writer))

    paths = wanted["paths"]
    async with asyncio.TaskGroup() as group:
        for number in range(wanted["streams"]):
            group.create_task(follow(paths[number % len(paths)]))
    print(len(held), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for _, writer in held:
        writer.close()


asyncio.run(main())
