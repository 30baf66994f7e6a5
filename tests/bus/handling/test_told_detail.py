"""The texts behind errors: told nothing by default, and in development as a note can hold it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from support.engines import ScriptedEngine

from sealbus import Agent, Context, RemoteError, Resource
from sealbus.bus.handling.told_detail import tell_nothing, tell_text
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.sending.status import NOTE_BYTES, State, Status
from sealbus.envelopes.errors import BadBody, Code, HandlingError
from sealbus.testing import TestBus

SECRET = "the text of a body"


class Order(BaseModel):
    quantity: int
    of: str = ""


def shop() -> Agent:
    agent = Agent("shop")

    async def item(body: Order) -> Resource:
        return Resource("item", "1", bad=object() if body.of == "resource" else "good")

    @agent.task("order", resource=item, retry=RetryPolicy(maximum_attempts=1))
    async def order(body: Order, ctx: Context) -> int:
        raise ValueError(f"{SECRET}: {body.quantity}")

    @agent.call("ask", resource=item)
    async def ask(body: Order, ctx: Context) -> int:
        raise ValueError(f"{SECRET}: {body.quantity}")

    return agent


async def failed(bus: TestBus, kind: str, body: dict[str, object]) -> RemoteError:
    client = await bus.client("web")

    async def ask() -> int:
        if kind == "task":
            return await (await client.submit("shop.order", body)).result(int)
        return await client.call("shop.ask", body, returns=int)

    with pytest.raises(RemoteError) as caught:
        await ask()
    return caught.value


@pytest.mark.parametrize("kind", ["task", "call"])
async def test_in_a_test_the_field_and_the_exception_are_told(kind: str) -> None:
    async with TestBus(shop(), engine=ScriptedEngine()) as bus:
        error = await failed(bus, kind, {"quantity": "many"})
        assert (error.code, error.note) == (Code.BAD_BODY, "does not fit at quantity")
        assert "does not fit at quantity" in str(error)
        error = await failed(bus, kind, {"quantity": 3})
        assert (error.code, error.note) == (Code.HANDLER_FAILED, f"ValueError: {SECRET}: 3")
        error = await failed(bus, kind, {"quantity": 3, "of": "resource"})
        assert "bad" in error.note


@pytest.mark.parametrize("kind", ["task", "call"])
async def test_elsewhere_nothing_is_told_but_the_code(kind: str) -> None:
    async with TestBus(shop(), engine=ScriptedEngine(), development=False) as bus:
        bodies: list[dict[str, object]] = [{"quantity": "many"}, {"quantity": 3}, {"quantity": 3, "of": "resource"}]
        for body in bodies:
            error = await failed(bus, kind, body)
            assert error.note == ""
            assert SECRET not in str(error)


def test_nothing_is_nothing() -> None:
    assert tell_nothing(BadBody("does not fit")) == ""


@given(st.text())
def test_whatever_the_text_a_note_holds_it(text: str) -> None:
    error = HandlingError(Code.HANDLER_FAILED, "ValueError")
    error.__cause__ = ValueError(text)
    for one in (error, BadBody(text)):
        note = tell_text(one)
        assert len(note.encode()) <= NOTE_BYTES
        Status(state=State.FAILED, code=Code.HANDLER_FAILED, note=note)
