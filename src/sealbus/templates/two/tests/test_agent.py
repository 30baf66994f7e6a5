import pytest
from sealbus import Denied
from sealbus.testing import TestBus

from demo.agent import Double, Doubled, double
from orders.agent import QUANTITIES, Order, read


async def test_an_order_is_doubled_for_its_owner(bus: TestBus) -> None:
    QUANTITIES["1"] = 10
    client, alice = await bus.client("web"), bus.user("alice", "web")
    handle = await client.submit(double, Double(order_id="1"), user=alice)
    assert await handle.result() == Doubled(order=Order(order_id="1", quantity=20))


async def test_for_nobody_else(bus: TestBus) -> None:
    client = await bus.client("web")
    handle = await client.submit(double, Double(order_id="1"), user=bus.user("bob", "web"))
    with pytest.raises(Denied, match="not_owner"):  # the reason of `orders`, passed on
        await handle.result()


async def test_not_to_too_much(bus: TestBus) -> None:
    QUANTITIES["1"] = 60
    client = await bus.client("web")
    async with bus.expect_denied("orders.change", reason="too_much_at_once"):
        await (await client.submit(double, Double(order_id="1"), user=bus.user("alice", "web"))).result()


async def test_who_may_double_may_not_read(bus: TestBus) -> None:
    async with bus.expect_denied("orders.read", reason="action_not_granted"):
        await (await bus.client("web")).call(read, Order(order_id="1"), user=bus.user("alice", "web"))
