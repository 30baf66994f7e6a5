import pytest
from sealbus.testing import TestBus

from desk.agent import ask
from refunds.agent import PAID

SILVER = "urn:example:silver"


@pytest.fixture(autouse=True)
def nothing_is_paid() -> None:
    PAID.clear()


async def answer(bus: TestBus, user: str, text: str) -> str:
    handle = await (await bus.client("web")).submit(ask, text, user=bus.user(user, "web"))
    return await handle.result()


async def test_a_small_refund_is_paid_at_once(bus: TestBus) -> None:
    assert "the cup arrived broken" in await answer(bus, "alice", "what about order 1?")
    assert await answer(bus, "alice", "refund order 1 with 2000 cents") == '{"cents":2000,"approved_by":[]}'
    assert PAID == [("1", 2_000, ())]


async def test_a_large_one_waits_for_a_person(bus: TestBus) -> None:
    said = await answer(bus, "alice", "refund order 2 with 30000 cents")
    assert said.startswith("refunds.pay: waits for an approval until ")
    assert PAID == []
    [waiting] = await bus.waiting()
    assert waiting.obligation.text == "refunds.pay: cents 30000, order 2, for alice"
    await bus.approve(waiting, "bob", acr=SILVER)
    await bus.idle()
    assert PAID == [("2", 30_000, ("bob",))]


async def test_a_text_that_the_model_believes_gives_nobody_anything(bus: TestBus) -> None:
    """Mallory's note tells the model to refund orders of alice; the model does what it is told."""
    said = await answer(bus, "mallory", "what about order 7?")
    assert [one[one.index("(") :] for one in said.split(" / ")] == ["(not_owner).", "(not_owner, over_limit)."]
    async with bus.expect_denied("refunds.pay", reason="not_owner"):
        await answer(bus, "mallory", "refund order 1 with 100 cents")
    assert PAID == []
    assert await bus.waiting() == []


async def test_nobody_gets_more_than_was_paid(bus: TestBus) -> None:
    assert "more than was paid" in await answer(bus, "alice", "refund order 1 with 4000 cents")
