"""The texts behind errors: told nothing by default, and in development as a note can hold it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from support.engines import ScriptedEngine

from sealbus import Agent, Context, RemoteError, Resource
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.sending.answer import NoListener
from sealbus.bus.sending.status import NOTE_BYTES, State, Status
from sealbus.bus.work.executor.told_detail import tell_nothing, tell_text, verbs_served
from sealbus.envelopes.errors import BadBody, Code, HandlingError, SealbusError
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
@pytest.mark.parametrize("development", [True, False])
async def test_the_log_has_the_text_of_an_exception_where_it_is_told(
    kind: str, development: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with TestBus(shop(), engine=ScriptedEngine(), development=development) as bus:
        await failed(bus, kind, {"quantity": 3})
    [line] = [one for one in caplog.messages if "failed: ValueError < " in one]
    assert "test_told_detail.py" in line
    assert line.endswith(f": ValueError: {SECRET}: 3") is development
    assert (SECRET in caplog.text) is development


@pytest.mark.parametrize("kind", ["task", "call"])
async def test_elsewhere_nothing_is_told_but_the_code(kind: str) -> None:
    async with TestBus(shop(), engine=ScriptedEngine(), development=False) as bus:
        bodies: list[dict[str, object]] = [{"quantity": "many"}, {"quantity": 3}, {"quantity": 3, "of": "resource"}]
        for body in bodies:
            error = await failed(bus, kind, body)
            assert error.note == ""
            assert SECRET not in str(error)


async def wrong(bus: TestBus, kind: str) -> SealbusError:
    client = await bus.client("web")
    body: dict[str, object] = {"quantity": 3}

    async def ask() -> int:
        if kind == "task":
            return await (await client.submit("shop.ordre", body)).result(int)
        return await client.call("shop.aks", body, returns=int)

    with pytest.raises((RemoteError, NoListener)) as caught:
        await ask()
    return caught.value


@pytest.mark.parametrize(("kind", "code"), [("task", Code.UNKNOWN_VERB), ("call", Code.NO_LISTENER)])
async def test_who_asks_for_what_is_not_there_is_told_in_tests_what_there_is(kind: str, code: Code) -> None:
    async with TestBus(shop(), engine=ScriptedEngine()) as bus:
        error = await wrong(bus, kind)
        assert error.code == code
        assert "there is shop.order (a task), shop.ask (a call)" in str(error)
    async with TestBus(shop(), engine=ScriptedEngine(), development=False) as bus:
        error = await wrong(bus, kind)
        assert error.code == code
        assert "shop.order" not in str(error)
        assert "shop.ask" not in str(error)


async def test_a_task_that_waits_for_its_verb_says_so() -> None:
    async with TestBus(shop(), engine=ScriptedEngine(), limits=WorkerLimits()) as bus:
        handle = await (await bus.client("web")).submit("shop.ordre", {"quantity": 3}, life=60)
        with pytest.raises(TimeoutError, match=r"still open \(working unknown_verb there is shop.order"):
            await handle.result(int, timeout=0.5)


def test_an_agent_without_tasks_and_calls_has_none() -> None:
    assert verbs_served([]) == "there is no task and no call"


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
