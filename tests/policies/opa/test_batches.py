"""Many documents in few questions: how they are cut, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
from support.opa_faults import codes, good
from support.policies import document

from sealbus.envelopes.errors import Code, PolicyFailed, PolicyUnavailable
from sealbus.policies.decision.engine import Answer
from sealbus.policies.opa.batches import BATCH, ask_batch, decide_all
from sealbus.policies.opa.wire import BATCH_PATH

T = TypeVar("T")

Says = Callable[[list[Any]], tuple[int, Any]]


class Opa:
    """Answers questions as `says` does about the documents asked for; keeps how many they were."""

    def __init__(self, says: Says = lambda batch: (200, good(len(batch)))) -> None:
        self.says = says
        self.sizes: list[int] = []
        self.asked: list[tuple[str, float]] = []

    async def ask(self, path: str, question: bytes, parse: Callable[[int, bytes], T], *, until: float) -> T:
        batch = json.loads(question)["input"]["batch"]
        self.sizes.append(len(batch))
        self.asked.append((path, until))
        await asyncio.sleep(0)
        status, answer = self.says(batch)
        return parse(status, json.dumps(answer).encode())

    async def decide(self, inputs: Sequence[bytes]) -> list[Answer]:
        return list(await decide_all(inputs, self.ask, engine="tested", until=7.0))


def bad(batch: list[Any]) -> bool:
    return any(one["action"]["name"] == "bad" for one in batch)


def failing(batch: list[Any]) -> tuple[int, Any]:
    if bad(batch):
        return 500, {"code": "internal_error", "errors": [{"code": "eval_builtin_error"}]}
    return 200, good(len(batch))


async def test_nothing_is_asked_of_nothing() -> None:
    opa = Opa()
    assert await opa.decide([]) == []
    assert opa.sizes == []


@pytest.mark.parametrize(("documents", "sizes"), [(1, [1]), (BATCH, [BATCH]), (BATCH + 1, [BATCH, 1])])
async def test_documents_are_asked_about_in_questions_of_a_bounded_size(documents: int, sizes: list[int]) -> None:
    opa = Opa()
    answers = await opa.decide([document()] * documents)
    assert codes(answers) == ["allow"] * documents
    assert opa.sizes == sizes
    assert set(opa.asked) == {(BATCH_PATH, 7.0)}
    assert {getattr(one, "engine", "") for one in answers} == {"tested"}


async def test_one_that_fails_is_found_in_a_few_questions() -> None:
    opa = Opa(failing)
    answers = await opa.decide([document("bad" if number == 17 else "yes") for number in range(50)])
    assert codes(answers) == ["allow"] * 17 + [Code.POLICY_ERROR] + ["allow"] * 32
    assert len(opa.sizes) <= 13


async def test_what_is_no_document_is_not_asked_about() -> None:
    opa = Opa()
    assert codes(await opa.decide([b"garbage", bytes(document()), b"[1]"])) == [
        Code.POLICY_ERROR,
        "allow",
        Code.POLICY_ERROR,
    ]
    assert opa.sizes == [1]


async def test_a_value_that_is_no_decision_fails_alone() -> None:
    opa = Opa(lambda batch: (200, {**good(len(batch)), "result": ["yes", *good(len(batch) - 1)["result"]]}))
    assert codes(await opa.decide([document()] * 3)) == [Code.POLICY_ERROR, "allow", "allow"]


@pytest.mark.parametrize("answer", [{}, {"result": [1, 2, 3]}])
async def test_without_a_policy_nothing_is_asked_twice(answer: object) -> None:
    opa = Opa(lambda _: (200, answer))
    answers = await opa.decide([document()] * 3)
    assert codes(answers) == [Code.POLICY_ERROR] * 3
    assert opa.sizes == [3]
    assert len({id(one) for one in answers}) == 3


async def test_without_an_answer_each_document_has_an_error_of_its_own() -> None:
    opa = Opa(lambda _: (503, {}))
    answers = await opa.decide([document()] * 3)
    assert codes(answers) == [Code.POLICY_UNAVAILABLE] * 3
    assert len({id(one) for one in answers}) == 3


async def test_a_question_about_nothing_tells_the_revision() -> None:
    assert (await ask_batch([], Opa().ask, until=7.0)).revision == "r1"
    with pytest.raises(PolicyUnavailable):
        await ask_batch([], Opa(lambda _: (503, {})).ask, until=7.0)
    with pytest.raises(PolicyFailed):
        await ask_batch([], Opa(lambda _: (200, {})).ask, until=7.0)
