"""What a replayed handler would have sent is noted, and goes nowhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import FunctionType

import pytest
from support.shop import Price, Shop, Update

from sealbus.agents.runtime.replay import sender as module
from sealbus.agents.runtime.replay.sender import NotSent, Unsent, WouldSend
from sealbus.agents.sdk.options import SubmitOptions
from sealbus.agents.sdk.sender import Sender
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.gate.calls import Requests
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))
BODY = Update(item_id="42")
SIZE = len(BODY.model_dump_json())


@pytest.fixture
def unsent() -> Unsent:
    return Unsent(own=NAMES.id_of("inventory"), names=NAMES)


async def test_nothing_of_the_base_that_could_send_is_left(unsent: Unsent) -> None:
    functions = {name: one for name, one in vars(Sender).items() if isinstance(one, FunctionType)}
    sends = {name for name, one in functions.items() if "_outbox" in one.__code__.co_names}
    assert sends == {"__init__", "_emitted", "_submitted"} <= vars(Unsent).keys()
    assert "_outbox" not in vars(unsent)
    used = {name for one in functions.values() for name in one.__code__.co_names} & vars(Requests).keys()
    assert {"address", "call", "stream"} <= used <= vars(type(unsent._requests)).keys()
    assert vars(unsent._requests).keys() == {"_unsent"}


async def test_an_event_is_noted_and_its_receipt_names_nothing(unsent: Unsent) -> None:
    receipt = await unsent.emit("ordered", BODY)
    assert unsent.noted == [WouldSend(kind="event", subject="event.inventory.ordered", size=SIZE)]
    assert (receipt.subject, receipt.stream, receipt.sequence) == ("event.inventory.ordered", "", 0)
    assert receipt.message_id == "0" * 32


async def test_a_task_is_noted_and_its_handle_has_no_result(unsent: Unsent) -> None:
    handle: TaskHandle = await unsent.submit("pricing.quote", BODY, options=SubmitOptions(partition="eu"))
    assert unsent.noted == [WouldSend(kind="task", subject="task.pricing.quote.eu", size=SIZE)]
    assert (handle.action, handle.sequence) == ("pricing.quote", 0)
    with pytest.raises(NotSent, match=r"pricing\.quote was not submitted"):
        await handle.result(Price)
    with pytest.raises(NotSent):
        await handle.status()


async def test_a_task_that_may_wait_for_an_approval_is_noted(unsent: Unsent) -> None:
    await unsent.submit("pricing.quote", BODY, options=SubmitOptions(wait=5))
    assert [message.kind for message in unsent.noted] == ["task"]


async def test_what_needs_an_answer_ends_the_handler(unsent: Unsent) -> None:
    with pytest.raises(NotSent, match=r"pricing\.quote is not called"):
        await unsent.call("pricing.quote", BODY, returns=Price)
    with pytest.raises(NotSent, match=r"pricing\.count is not called"):
        await anext(unsent.stream(Shop().pricing.handlers["call.pricing.count"], BODY))
    assert [(one.kind, one.subject) for one in unsent.noted] == [
        ("call", "call.pricing.quote"),
        ("call", "call.pricing.count"),
    ]


@pytest.mark.parametrize(
    "send",
    [
        lambda unsent: unsent.submit("nonsense", BODY),
        lambda unsent: unsent.submit(Shop().pricing.handlers["call.pricing.quote"], BODY),
        lambda unsent: unsent.submit("pricing.quote", object()),
        lambda unsent: unsent.emit("two.tokens.*", BODY),
        lambda unsent: unsent.call("nonsense", BODY, returns=Price),
    ],
)
async def test_what_could_not_be_sent_fails_as_it_would(
    unsent: Unsent, send: Callable[[Unsent], Awaitable[object]]
) -> None:
    with pytest.raises(SealbusError) as failed:
        await send(unsent)
    assert not isinstance(failed.value, NotSent)
    assert unsent.noted == []


async def test_a_handler_that_sends_without_end_is_ended(unsent: Unsent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTED", 3)
    for _ in range(3):
        await unsent.emit("ordered", BODY)
    with pytest.raises(NotSent, match="over 3 messages"):
        await unsent.emit("ordered", BODY)
    assert len(unsent.noted) == 3
