"""The pricing example: who may ask, and what there is to ask for."""

from __future__ import annotations

import pytest

from sealbus import Denied
from sealbus.agents.examples import pricing
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.errors import Code
from sealbus.testing import TestBus


async def test_a_price_comes_from_the_list(shop: TestBus) -> None:
    client = await shop.client("shop-web")
    price = await client.call(pricing.quote, pricing.Quote(item_id="42"))
    assert price == pricing.Price(item_id="42", cents=1_999)
    await shop.assert_allowed("pricing.quote")


async def test_what_is_not_on_the_list_has_no_price(shop: TestBus) -> None:
    client = await shop.client("shop-web")
    with pytest.raises(RemoteError) as caught:
        await client.call(pricing.quote, pricing.Quote(item_id="nothing"))
    assert caught.value.code is Code.RESOURCE_NOT_FOUND


async def test_an_agent_without_the_right_is_denied(shop: TestBus) -> None:
    client = await shop.client("stranger")
    with pytest.raises(Denied):
        await client.call(pricing.quote, pricing.Quote(item_id="42"))
    await shop.assert_denied("pricing.quote", reason="action_not_granted")
