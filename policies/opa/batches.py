"""Decisions about many documents in few questions, for the engines that ask an OPA over HTTP."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.policies.decision.connect import ConnectAnswer, parse_connect
from sealbus.policies.decision.decision import parse_decision
from sealbus.policies.decision.documents import InputDocument, checked_document
from sealbus.policies.decision.engine import Answer, Parse
from sealbus.policies.opa.http import Ask
from sealbus.policies.opa.wire import (
    APPROVAL_PATH,
    BATCH_PATH,
    CONNECT_PATH,
    NoPolicy,
    Reply,
    batch_question,
    parse_reply,
    parse_single_reply,
    single_question,
)

BATCH: Final = 50
"""Documents per question. OPA evaluates a question on one core; with this many, its overhead per call is small."""
DEADLINE: Final = 1.0
"""Default seconds for one call of `decide`."""

T = TypeVar("T")


class AskingEngine(ABC):
    """An engine that asks an OPA over HTTP. `deadline` is in seconds, for one call of `decide`, `connect` or `approve`."""

    def __init__(self, deadline: float) -> None:
        self._deadline: Final = deadline

    @property
    @abstractmethod
    def name(self) -> str:
        """The engine's name in decisions."""

    @abstractmethod
    async def ask(self, path: str, question: bytes, parse: Callable[[int, bytes], T], *, until: float) -> T:
        """Ask one question, as `Ask` defines."""

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Answer]:
        """Return one answer for each input document, in order."""
        return await decide_all(inputs, self.ask, engine=self.name, until=self._until())

    async def connect(self, document: bytes) -> ConnectAnswer:
        """Return the decision on one connection to NATS."""
        return await ask_single(CONNECT_PATH, document, parse_connect, self.ask, engine=self.name, until=self._until())

    async def approve(self, document: bytes) -> Answer:
        """Return the decision on who may approve."""
        return await ask_single(
            APPROVAL_PATH, document, parse_decision, self.ask, engine=self.name, until=self._until()
        )

    def _until(self) -> float:
        return asyncio.get_running_loop().time() + self._deadline


async def decide_all(inputs: Sequence[bytes], ask: Ask, *, engine: str, until: float) -> Sequence[Answer]:
    """Return one answer for each input document, in order, by asking about at most 50 at a time until `until`.

    A question that could not be evaluated is asked again in halves, down to the one document that fails alone.
    `engine` is the name for the decisions.
    """
    answers: dict[int, Answer] = {}
    asking: list[tuple[int, InputDocument]] = []
    for number, document in enumerate(inputs):
        try:
            checked = checked_document(document)
        except PolicyFailed as error:
            answers[number] = error
        else:
            asking.append((number, checked))
    parts = [asking[start : start + BATCH] for start in range(0, len(asking), BATCH)]
    if len(parts) == 1:
        await _decide(parts[0], answers, ask, engine, until)
    else:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(_decide(part, answers, ask, engine, until))
    return [answers[number] for number in range(len(inputs))]


async def ask_batch(documents: Sequence[InputDocument], ask: Ask, *, until: float) -> Reply:
    """Ask for the decisions about `documents` in one question. Without documents the reply has only the revision in force."""
    return await ask(BATCH_PATH, batch_question(documents), partial(parse_reply, count=len(documents)), until=until)


async def ask_single(
    path: str, document: bytes, parse: Parse[T], ask: Ask, *, engine: str, until: float
) -> T | PolicyUnavailable | PolicyFailed:
    """Return the answer of the rule at `path` about one document, as `parse` reads it. Errors are answers."""
    started = time.perf_counter_ns()
    try:
        revision, value = await ask(path, single_question(checked_document(document)), parse_single_reply, until=until)
        micros = (time.perf_counter_ns() - started) // 1_000
        return parse(value, revision=revision, engine=engine, micros=micros)
    except (PolicyUnavailable, PolicyFailed) as error:
        return error


async def _decide(
    asking: Sequence[tuple[int, InputDocument]], answers: dict[int, Answer], ask: Ask, engine: str, until: float
) -> None:
    """Put an answer for each of `asking` into `answers`."""
    started = time.perf_counter_ns()
    try:
        reply = await ask_batch([document for _, document in asking], ask, until=until)
    except PolicyUnavailable as error:
        for number, _ in asking:
            answers[number] = PolicyUnavailable(error.detail)
    except NoPolicy as error:
        for number, _ in asking:
            answers[number] = PolicyFailed(error.detail)
    except PolicyFailed as error:
        if len(asking) == 1:
            answers[asking[0][0]] = error
        else:
            half = len(asking) // 2
            await _decide(asking[:half], answers, ask, engine, until)
            await _decide(asking[half:], answers, ask, engine, until)
    else:
        micros = (time.perf_counter_ns() - started) // (1_000 * max(len(asking), 1))
        for (number, _), value in zip(asking, reply.values, strict=True):
            try:
                answers[number] = parse_decision(value, revision=reply.revision, engine=engine, micros=micros)
            except PolicyFailed as error:
                answers[number] = error
