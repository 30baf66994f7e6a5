"""What must be an error: a line that a checker lets pass has its comment for nothing, which is an error again."""

from __future__ import annotations

from collections.abc import Awaitable

from invoicing.invoices import Get, Invoice, get, issue, lines
from sealbus import Agent, Client, Context, RetryPolicy, TaskHandle, gather
from sealbus.agents.sdk.agent import Handler

agent = Agent("mistakes")

GET = Get(number=1)
INVOICE = Invoice(number=1, cents=2)


async def bodies(ctx: Context, bus: Client) -> None:
    await ctx.call(get, INVOICE)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await ctx.submit(issue, GET)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await bus.call(get, 1)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await bus.submit(issue, "")  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ctx.stream(lines, INVOICE)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    bus.stream(lines, INVOICE)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await get(INVOICE, ctx)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def answers(ctx: Context, bus: Client) -> None:
    text: str = await ctx.call(get, GET)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    number: int = await get(GET, ctx)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    handle: TaskHandle[str] = await bus.submit(issue, INVOICE)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    cents: str = await (await ctx.submit(issue, INVOICE)).result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(text, number, handle, cents)


async def unsaid(ctx: Context, bus: Client) -> None:
    await ctx.call("invoices.get", GET)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    bus.stream("invoices.lines", GET)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


async def manners(ctx: Context, bus: Client) -> None:
    await ctx.call(lines, GET)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bus.stream(get, GET)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await lines(GET, ctx)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


async def options(ctx: Context, bus: Client) -> None:
    await ctx.call(get, GET, timeuot=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await ctx.submit(issue, INVOICE, life="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.call(get, GET, user=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await bus.submit(issue, INVOICE, grants=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def several(handle: TaskHandle[int], bus: Client) -> None:
    await gather(handle)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await gather([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await gather([handle], 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await gather([handle], least="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    texts: tuple[str, ...] = (await gather([handle])).results  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(texts)


def narrow(handler: Handler[Get, Awaitable[object]]) -> Handler[Get, Awaitable[Invoice]]:
    return handler  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@agent.task("plain")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
def plain(body: Get, ctx: Context) -> None: ...


@agent.task("often", retry="often")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def often(body: Get, ctx: Context) -> None: ...


RetryPolicy(non_retryable=(5,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@agent.task("alone")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def alone(body: Get) -> None: ...


@agent.task("chunks")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
def chunks(body: Get, ctx: Context) -> int:
    return 1
