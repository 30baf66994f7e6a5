"""What is no agent: a client that submits, calls and reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import assert_type

from invoicing.invoices import Get, Invoice, get, issue, lines, remind
from sealbus import Client, Gathered, TaskHandle, gather
from sealbus.agents.sdk.bodies import TypedAction


async def main() -> None:
    async with Client("shop-web") as bus:
        user = await bus.user_context("token")
        # With the answer's type wanted by nobody, by something wider, and by itself.
        print(await bus.call(get, Get(number=1), user=user, timeout=5))
        wider: object = await bus.call(get, Get(number=1))
        found: Invoice = await bus.call(get, Get(number=1))
        assert_type(await bus.call("invoices.get", Get(number=1), returns=Invoice), Invoice)
        print(wider, found, await bus.call("invoices.get", 1, returns=list[Invoice]))
        async for text in bus.stream(lines, Get(number=2), user=user):
            assert_type(text, str)
        async for text in bus.stream("invoices.lines", Get(number=2), returns=str):
            assert_type(text, str)

        handle = await bus.submit(issue, found, user=user, life=60, idempotency_key="1")
        assert_type(handle, TaskHandle[int])
        assert_type(await handle.result(timeout=5), int)
        assert_type(await handle.result(Invoice), Invoice)
        print(await (await bus.submit(issue, found)).result())
        named = await bus.submit("invoices.issue", found)
        assert_type(await named.result(), object)
        assert_type(await named.result(int), int)
        assert_type(await bus.handle(handle.text).result(int), int)
        assert_type(await (await bus.submit(remind, Get(number=1))).result(), None)


async def told(handle: TaskHandle) -> str:
    """Take the handle of any task."""
    return f"{handle}: {await handle.status()}"


async def both(first: TaskHandle[int], second: TaskHandle) -> list[str]:
    return list(await asyncio.gather(told(first), told(second)))


async def several(bus: Client, number: TaskHandle[int], text: TaskHandle[str], named: TaskHandle) -> int:
    issued = [await bus.submit(issue, Invoice(number=one, cents=1)) for one in range(3)]
    found = await gather(issued, deadline=30, least=2)
    assert_type(found, Gathered[int])
    assert_type(found.results, tuple[int, ...])
    for handle, result in found.done:
        assert_type(handle, TaskHandle[int])
        assert_type(result, int)
    for handle, error in found.failed:
        assert_type(await handle.result(), int)
        print(error.code)
    for handle in found.late:
        assert_type(handle, TaskHandle[int])
    assert_type(await gather([named]), Gathered[object])
    assert_type(await gather(one for one in issued), Gathered[int])
    mixed: list[TaskHandle[int | str]] = [number, text]
    assert_type(await gather(mixed), Gathered[int | str])
    return sum(found.results)


async def ask(bus: Client, action: TypedAction[Get, Awaitable[Invoice]]) -> int:
    return (await bus.call(action, Get(number=1))).cents


def asked(bus: Client) -> Awaitable[int]:
    return ask(bus, get)
