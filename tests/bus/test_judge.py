"""The judge: an engine that fails, in whatever way, decides nothing and ends nobody."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.engines import ScriptedEngine, Verdict, allow
from support.shop import Price, Shop, Update

from sealbus.bus.answer_policy import AnswerPolicy
from sealbus.bus.judge import Judge
from sealbus.bus.requests import RemoteError
from sealbus.envelopes.errors import Code, PolicyFailed, PolicyUnavailable
from sealbus.testing import TestBus


class Raising(ScriptedEngine):
    """Raises `error` until it is taken away."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
        if self.error is not None:
            raise self.error
        return await super().decide(inputs)


class Short(ScriptedEngine):
    """Answers one question too few."""

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
        return [allow()] * (len(inputs) - 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyUnavailable("away"), Code.POLICY_UNAVAILABLE),
        (PolicyFailed("nonsense"), Code.POLICY_ERROR),
        (RuntimeError("a secret"), Code.POLICY_UNAVAILABLE),
    ],
)
async def test_what_an_engine_raises_is_no_decision_for_all(error: Exception, code: Code) -> None:
    answers = await Judge(engine=Raising(error)).decide([b"{}", b"{}"])
    assert [one.code for one in answers if isinstance(one, PolicyUnavailable | PolicyFailed)] == [code, code]
    assert "a secret" not in str(answers)


async def test_an_answer_too_few_is_an_error_for_all() -> None:
    answers = await Judge(engine=Short()).decide([b"{}", b"{}"])
    assert [type(one) for one in answers] == [PolicyFailed, PolicyFailed]


async def test_an_engine_that_breaks_does_not_end_the_worker() -> None:
    shop, engine = Shop(), Raising(RuntimeError("a secret"))
    async with TestBus(shop.pricing, engine=engine) as bus:
        other = ScriptedEngine()
        client = await bus.client("shop-web")
        client.node.requests._policy = AnswerPolicy(judge=Judge(engine=other), audit=client.node.audit)
        with pytest.raises(RemoteError) as refused:
            await client.call("pricing.quote", Update(item_id="1"), returns=Price)
        assert refused.value.code is Code.POLICY_UNAVAILABLE
        engine.error = None
        assert await client.call("pricing.quote", Update(item_id="1"), returns=Price) == Price(item_id="1", price=7)
    assert shop.handled == [("quote", 1)]


async def test_nothing_opened_is_nothing_asked() -> None:
    engine = ScriptedEngine()
    assert await Judge(engine=engine).judge([]) == []
    assert engine.asked == []
