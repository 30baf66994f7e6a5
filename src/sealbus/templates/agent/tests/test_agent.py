from sealbus.testing import TestBus

from demo.agent import Order, change, read


async def test_an_owner_changes_an_order(bus: TestBus) -> None:
    client, alice = await bus.client("web"), bus.user("alice", "web")
    handle = await client.submit(change, Order(order_id="1", quantity=3), user=alice)
    assert await handle.result() == Order(order_id="1", quantity=3)
    assert await client.call(read, Order(order_id="1"), user=alice) == Order(order_id="1", quantity=3)


async def test_nobody_else_reads_it(bus: TestBus) -> None:
    client = await bus.client("web")
    async with bus.expect_denied("demo.read", reason="not_owner"):
        await client.call(read, Order(order_id="1"), user=bus.user("bob", "web"))


async def test_nobody_orders_too_much(bus: TestBus) -> None:
    client = await bus.client("web")
    async with bus.expect_denied("demo.change", reason="too_much_at_once"):
        handle = await client.submit(change, Order(order_id="1", quantity=5000), user=bus.user("alice", "web"))
        await handle.result()
