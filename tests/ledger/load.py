"""The load: `python -m ledger.load BOOK RATE`, until SIGTERM. Submits, and writes down what was acknowledged.

A task that was refused, or about which nobody answered, is submitted again under the same idempotency key, as a sender
would that has to get it done. What may have been stored without our hearing of it is not in the book, and may be done.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from pydantic import BaseModel

from ledger.book import Book, is_denied
from sealbus import Client
from sealbus.envelopes.errors import SealbusError

IN_FLIGHT = 256
AGAIN = 0.2
OVER = 1_000


class Payment(BaseModel):
    number: int
    amount: int


async def submit(client: Client, book: Book, number: int, stop: asyncio.Event) -> None:
    """Submit one task until it is acknowledged."""
    verb = "pay" if number % 2 else "note"
    # Numbers of denied tasks are even, too: half of those that pay are denied by the second digit.
    verb = "pay" if number % 20 == 0 else verb
    body = Payment(number=number, amount=OVER if is_denied(number) else 5)
    while not stop.is_set():
        try:
            handle = await client.submit(f"bank.{verb}", body, idempotency_key=f"payment-{number}")
        except SealbusError as error:
            book.refuse(number, str(error.code))
            await asyncio.sleep(AGAIN)
        else:
            book.acknowledge(number, verb, handle.text)
            return


async def main(book: Book, rate: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    room = asyncio.Semaphore(IN_FLIGHT)
    loop = asyncio.get_running_loop()
    async with Client("shop") as client, asyncio.TaskGroup() as group:
        started, number = loop.time(), 0
        while not stop.is_set():
            await room.acquire()
            number += 1
            task = group.create_task(submit(client, book, number, stop))
            task.add_done_callback(lambda _: room.release())
            await asyncio.sleep(max(0.0, started + number / rate - loop.time()))


if __name__ == "__main__":
    asyncio.run(main(Book(Path(sys.argv[1])), float(sys.argv[2])))
