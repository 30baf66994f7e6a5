"""The agent: a task, a call, a call that is answered in chunks, an event, an own subject, and calls of its own handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import assert_type

from pydantic import BaseModel

from sealbus import Agent, Context, Reject, RemoteError, Resource, Retry, RetryPolicy, TaskHandle
from sealbus.agents.sdk.agent import Handler

agent = Agent("invoices")

RETRIES = RetryPolicy(initial_interval=1.0, maximum_attempts=None, non_retryable=(ValueError, "paid_already"))


class Get(BaseModel):
    """Ask for an invoice."""

    number: int


class Invoice(BaseModel):
    """An invoice."""

    number: int
    cents: int


@agent.lifespan
async def lifespan() -> AsyncIterator[None]:
    yield


async def owned(body: Get | Invoice) -> Resource:
    return Resource("invoice", str(body.number), owner="alice")


@agent.call("get", resource=owned, facts=["number"])
async def get(body: Get, ctx: Context) -> Invoice:
    return Invoice(number=body.number, cents=100)


@agent.call("lines", chunks=True)
async def lines(body: Get, ctx: Context) -> AsyncIterator[str]:
    for number in range(body.number):
        yield f"line {number}"


@agent.task("print")
async def pages(body: Get, ctx: Context) -> AsyncIterator[str]:
    yield f"page {body.number}"


@agent.task("issue", resource=owned, once=True)
async def issue(body: Invoice, ctx: Context) -> int:
    found = await ctx.call(
        get, Get(number=body.number), timeout=5, grants=("invoices.get",), media_type="application/json"
    )
    assert_type(found, Invoice)
    named = await ctx.call("invoices.get", Get(number=body.number), returns=Invoice)
    assert_type(named, Invoice)
    texts = [text async for text in ctx.stream(lines, Get(number=2))]
    assert_type(texts, list[str])
    assert_type([one async for one in ctx.stream("invoices.lines", body, returns=str)], list[str])
    await ctx.emit("issued", body)
    return found.cents


@agent.task("remind", retry=RETRIES, total_timeout=60, concurrency=4, ordered=True)
async def remind(body: Get, ctx: Context) -> None:
    if body.number < 0:
        raise Reject("no_such_number", note="numbers begin at 0")
    if ctx.delivery == 1:
        raise Retry(after=86_400, note="tomorrow")
    assert_type(RemoteError("paid_already").code, str)
    handle = await ctx.submit(issue, Invoice(number=body.number, cents=1), grants=["invoices.get"])
    assert_type(handle, TaskHandle[int])
    assert_type(await ctx.submit("invoices.issue", body), TaskHandle[object])
    printed = await ctx.submit(pages, body, detached=True)
    assert_type(printed, TaskHandle[list[str]])
    assert_type(await printed.result(), list[str])
    assert_type([part.value async for part in printed.parts(str)], list[str])
    async with ctx.shield("sending"):
        await handle.cancel("not needed")


@agent.on("event.invoices.issued")
async def issued(body: Invoice, ctx: Context) -> None:
    await ctx.progress("seen")


@agent.on("shop.invoices.count")
async def count(body: Get, ctx: Context) -> AsyncIterator[int]:
    yield body.number


async def alone(ctx: Context) -> None:
    """Call the handlers as the functions that they are."""
    assert_type(await get(Get(number=1), ctx), Invoice)
    assert_type(await issue(Invoice(number=1, cents=2), ctx), int)
    assert_type(lines(Get(number=1), ctx), AsyncIterator[str])
    assert_type([one async for one in count(Get(number=1), ctx)], list[int])
    wider: Handler[Get, Awaitable[object]] = get
    await wider(Get(number=1), ctx)
