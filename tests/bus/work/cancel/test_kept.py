"""Stops that outlive a day: who may say one, which one stays, and what follows from what was canceled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.near import nearly
from support.payments import Pay, Payments

from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.messages import Origin
from sealbus.agents.sdk.options import SubmitOptions
from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.stream_names import HELD
from sealbus.bus.work.cancel.kept import KEPT_STOP_TYPE, KeptStops
from sealbus.bus.work.cancel.stop import Stop
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.message.header import Header
from sealbus.testing import TestBus


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as running:
        await payments.submitted(running)
        yield running


def kept(node: Node) -> KeptStops:
    deployment = node.deployment
    return KeptStops(node.held, identity=node.identity, names=deployment.names, own_subjects=deployment.own_subjects)


async def parked(bus: TestBus) -> tuple[Header, Stop, Node]:
    [one] = await bus.waiting()
    header, node = one.header, bus.workers["payments"].node
    stop = Stop(
        agent=node.own,
        digest=header.digest,
        action="payments.pay",
        by=header.iss,
        role=CancelRole.REQUESTER,
        reason="a mistake",
        end=header.end or 0,
        at=node.clock(),
        cancel=b"c" * 32,
    )
    return header, stop, node


async def test_a_stop_is_found_by_every_process_and_long_after(bus: TestBus) -> None:
    header, stop, node = await parked(bus)
    assert await kept(node).find([header]) is None
    await kept(node).keep(stop)
    found = await kept((await bus.client("edge")).node).find([header])
    assert found is not None
    assert (found.by, found.reason) == (header.iss, "a mistake")
    assert await kept(node).find([]) is None


async def test_the_first_stays_but_for_an_operators(bus: TestBus) -> None:
    header, stop, node = await parked(bus)
    versions = len(bus.stored(HELD))
    await kept(node).keep(stop)
    await kept(node).keep(replace(stop, reason="another"))
    assert len(bus.stored(HELD)) == versions + 1
    operator = replace(stop, role=CancelRole.OPERATOR, reason="by an operator")
    await kept(node).keep(operator)
    await kept(node).keep(stop)
    assert len(bus.stored(HELD)) == versions + 2
    found = await kept(node).find([header])
    assert found is not None
    assert found.reason == "by an operator"


async def test_a_stop_does_not_reach_past_what_is_detached() -> None:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        await payments.submitted(bus)
        above, stop, node = await parked(bus)
        sending = (await bus.client("shop")).node.sending
        apart, below = [
            (
                await sending.submit(
                    "payments.pay",
                    Pay(),
                    origin=Origin.user(bus.user("alice", "shop")),
                    options=SubmitOptions(detached=detached),
                )
            ).digest
            for detached in (True, False)
        ]
        await bus.idle()
        headers = {one.digest: one.header for one in await bus.waiting()}
        await kept(node).keep(stop)
        assert await kept(node).find([above, headers[below]]) is not None
        assert await kept(node).find([above, headers[apart]]) is None
        assert await kept(node).find([above, headers[apart], headers[below]]) is None
        # Who is detached from what was canceled may be canceled all the same, and what follows from it with it.
        await kept(node).keep(replace(stop, digest=apart, reason="itself"))
        for chain in ([above, headers[apart]], [above, headers[apart], headers[below]]):
            found = await kept(node).find(chain)
            assert found is not None
            assert found.reason == "itself"


async def test_a_stop_of_another_message_or_agent_stops_nothing(bus: TestBus) -> None:
    header, stop, node = await parked(bus)
    await kept(node).keep(replace(stop, digest=nearly(header.digest)))
    assert await kept(node).find([header]) is None
    shop = (await bus.client("shop")).node
    subject = f"held.shop.stop.{header.digest.hex()}.shop"
    keys: dict[str, Value] = {
        "dig": header.digest,
        "act": "payments.pay",
        "by": header.iss.value,
        "rol": CancelRole.REQUESTER.value,
        "rsn": "",
        "end": header.end or 0,
        "mad": shop.clock(),
        "can": b"c" * 32,
    }
    stored = await shop.held.write(subject, keys, KEPT_STOP_TYPE, shop.identity.sealer())
    assert stored is not None
    [raw] = [one.payload for one in bus.stored(HELD) if one.subject == subject]
    bus.broker.inject(subject.replace("held.shop.", "held.payments."), raw)
    assert await kept(node).find([header]) is None
