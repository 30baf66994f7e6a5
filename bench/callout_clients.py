"""The clients of `bench/callout.py`: connects many at once when told, says how many are in, and who still is at the end."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys

__all__: list[str] = []

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\nPING\r\n'
PATIENCE = 120.0


class Crowd:
    """So many clients, which count those of them that are in."""

    def __init__(self, port: int, context: ssl.SSLContext, size: int) -> None:
        self.port, self.context, self.size = port, context, size
        self.answered = self.present = 0
        self.all_answered = asyncio.Event()

    async def connect(self) -> None:
        """Connect one client, and keep it until the server ends it."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, ssl_handshake_timeout=PATIENCE
        )
        await reader.readline()
        writer.write(CONNECT)
        is_in = False
        try:
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                elif line.startswith(b"PONG"):
                    is_in = True
                    self.present += 1
                    self.count_answer()
        finally:
            self.present -= is_in
            if not is_in:
                self.count_answer()

    def count_answer(self) -> None:
        """Count a client that was let in or refused."""
        self.answered += 1
        if self.answered == self.size:
            self.all_answered.set()


async def main() -> None:
    """Do what the first line of the input asks for."""
    loop = asyncio.get_running_loop()
    wanted = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(wanted["authority"])
    context.load_cert_chain(wanted["certificate"])
    crowd = Crowd(wanted["port"], context, wanted["clients"])
    tasks = [asyncio.create_task(crowd.connect()) for _ in range(crowd.size)]
    await crowd.all_answered.wait()
    print(crowd.present, flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(crowd.present, flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
