"""The load: `python -m ledger.load BOOK RATE`, until SIGTERM. Submits, and writes down what was acknowledged.

Another load with the same book goes on after the last number that is in it.

One in twenty is canceled, at once or a moment later, before it is due, or while no worker runs: as it comes. When that was
confirmed is in the book.

Where LEDGER_EDGE is an edge's URL, one in ten is submitted there, as a user with the token LEDGER_TOKEN.

A task that was refused, or about which nobody answered, is submitted again under the same idempotency key, as a sender
would that has to get it done. What may have been stored without our hearing of it is not in the book, and may be done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from pydantic import BaseModel

from ledger.book import POISON, PUT_OFF, Book, cancel_after, is_at_the_edge, is_denied, is_put_off
from sealbus import Client
from sealbus.envelopes.errors import SealbusError

IN_FLIGHT = 256
AGAIN = 0.2
OVER = 1_000
BEHIND = 1.0
"""Seconds of the load that are made up for after an outage: a queue of all of them would hide how soon work goes on."""
CONFIRMED = 15.0
"""Seconds to wait for a cancel to be confirmed, before it is asked for again."""


class Payment(BaseModel):
    number: int
    amount: int
    due: float


class Edge:
    """The edge, as its user has it."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def submit(self, verb: str, body: Payment, key: str) -> str:
        """Return the path of an acknowledged task; raise `httpx2.HTTPError` for every other answer."""
        fields = {"Idempotency-Key": f'"{key}"', "Content-Type": "application/json"}
        answer = await self._http.post(f"/v1/tasks/bank/{verb}", content=body.model_dump_json(), headers=fields)
        answer.raise_for_status()
        return str(answer.json()["status_url"])

    async def cancel(self, path: str) -> bool:
        """Return whether this was confirmed: a task that has ended is not canceled; raise as `submit`."""
        answer = await self._http.delete(path)
        if answer.status_code == httpx2.codes.CONFLICT:
            return False
        answer.raise_for_status()
        return True


@asynccontextmanager
async def open_edge() -> AsyncIterator[Edge | None]:
    """Give the edge of the environment, if there is one."""
    url = os.environ.get("LEDGER_EDGE")
    if url is None:
        yield None
        return
    token = {"Authorization": f"Bearer {os.environ['LEDGER_TOKEN']}"}
    async with httpx2.AsyncClient(base_url=url, headers=token, trust_env=False, timeout=CONFIRMED) as http:
        yield Edge(http)


async def submit(client: Client, edge: Edge | None, book: Book, number: int, stop: asyncio.Event) -> str | None:
    """Submit one task until it is acknowledged, and return its handle, or `None` if the load ended before."""
    verb = "pay" if number % 2 else "note"
    # Numbers of denied tasks are even, too: half of those that pay are denied by the second digit.
    verb = "pay" if number % 20 == 0 else verb
    if number < 0:
        verb = POISON
    body = Payment(
        number=number, amount=OVER if is_denied(number) else 5, due=time.time() + PUT_OFF if is_put_off(number) else 0
    )
    key = f"payment-{number}"
    while not stop.is_set():
        try:
            if edge is not None and is_at_the_edge(number):
                handle = await edge.submit(verb, body, key)
            else:
                handle = (await client.submit(f"bank.{verb}", body, idempotency_key=key)).text
        except (SealbusError, httpx2.HTTPError) as error:
            book.refuse(number, str(getattr(error, "code", type(error).__name__)))
            await asyncio.sleep(AGAIN)
        else:
            book.acknowledge(number, verb, handle)
            return handle
    return None


async def cancel(client: Client, edge: Edge | None, book: Book, number: int, handle: str, stop: asyncio.Event) -> None:
    """Cancel one task until that is confirmed, or it has ended."""
    while not stop.is_set():
        book.ask_cancel(number)
        try:
            if edge is None or not handle.startswith("/"):
                await client.handle(handle).cancel("not wanted", timeout=CONFIRMED)
            elif not await edge.cancel(handle):
                return
        except (SealbusError, TimeoutError, httpx2.HTTPError):
            await asyncio.sleep(AGAIN)
        else:
            book.confirm_cancel(number)
            return


async def main(book: Book, rate: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    room = asyncio.Semaphore(IN_FLIGHT)
    loop = asyncio.get_running_loop()
    async with Client("shop") as client, open_edge() as edge, asyncio.TaskGroup() as group:

        async def one(number: int) -> None:
            try:
                handle = await submit(client, edge, book, number, stop)
            finally:
                room.release()
            if handle is not None and (pause := cancel_after(number)) is not None:
                await asyncio.sleep(pause)
                await cancel(client, edge, book, number, handle, stop)

        # Whatever a load before this one has begun, it has written as acknowledged or refused before it ended.
        query = "SELECT max(number) FROM (SELECT number FROM acknowledged UNION ALL SELECT number FROM refused)"
        due, number = loop.time(), max(0, int(book.value(query)))
        while not stop.is_set():
            await room.acquire()
            number += 1
            group.create_task(one(number))
            due = max(due + 1 / rate, loop.time() - BEHIND)
            await asyncio.sleep(max(0.0, due - loop.time()))


if __name__ == "__main__":
    asyncio.run(main(Book(Path(sys.argv[1])), float(sys.argv[2])))
