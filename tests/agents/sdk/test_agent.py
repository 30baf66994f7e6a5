"""Declarations: where a handler listens and what it stands for, and which ones are refused at import."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from support.shop import Shop, Update

from sealbus import Agent, Context, Resource, RetryPolicy
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind


async def handle(body: Update, ctx: Context) -> None:
    """Do nothing."""


def test_each_kind_has_its_subject_and_action() -> None:
    shop = Shop()
    found = {
        (one.kind, one.subject, one.action)
        for one in (*shop.inventory.handlers.values(), *shop.pricing.handlers.values())
    }
    assert (Kind.TASK, "task.inventory.update", "inventory.update") in found
    assert (Kind.CALL, "call.pricing.quote", "pricing.quote") in found
    assert (Kind.EVENT, "event.inventory.ordered", "inventory.ordered") in found


def test_types_come_from_the_annotations() -> None:
    handler = Agent("inventory").task("update")(handle)
    assert handler.takes.type is Update
    assert handler.gives.type is type(None)
    assert Shop().pricing.handlers["call.pricing.count"].streams


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">"])
def test_a_name_is_one_token(name: str) -> None:
    with pytest.raises(ConfigurationError, match="agent name"):
        Agent(name)
    with pytest.raises(ConfigurationError, match="verb"):
        Agent("inventory").task(name)


def test_a_subject_has_one_handler() -> None:
    agent = Agent("inventory")
    agent.task("update")(handle)
    with pytest.raises(ConfigurationError, match="two handlers"):
        agent.task("update")


def test_a_fact_is_a_field() -> None:
    with pytest.raises(ConfigurationError, match="no field price"):
        Agent("inventory").task("update", facts=["price"])(handle)


def test_how_a_handler_is_tried_again_is_a_policy_or_a_number_of_tries_after_the_first() -> None:
    agent, policy = Agent("inventory"), RetryPolicy(maximum_attempts=2)
    assert agent.task("a", retry=policy)(handle).options.retry is policy
    assert agent.task("b", retry=0)(handle).options.retry == RetryPolicy(maximum_attempts=1)
    assert agent.task("c")(handle).options.retry == RetryPolicy(maximum_attempts=6)
    for retry in (-1, True, 1.5, "often"):
        with pytest.raises(ConfigurationError, match="a RetryPolicy or 0 or more tries after the first"):
            agent.task("update", retry=retry)(handle)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 86_401.0, True, "long"])
def test_all_attempts_together_have_no_longer_than_a_message_lives(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout is over 0 and at most 86400 s"):
        Agent("inventory").task("update", total_timeout=seconds)(handle)
    with pytest.raises(ConfigurationError, match="timeout is over 0 and at most 86400 s"):
        Agent("inventory").on("event.shop.happened", total_timeout=seconds)(handle)


@pytest.mark.parametrize("most", [0, -1, True, 1.0, "4"])
def test_a_limit_on_concurrency_is_one_or_more(most: Any) -> None:
    agent = Agent("inventory")
    for declare in (agent.task, agent.call, agent.on):
        with pytest.raises(ConfigurationError, match="concurrency is 1 or more, or None"):
            declare("update", concurrency=most)(handle)


def plain(body: Update, ctx: Context) -> None:
    """Not async."""


async def alone(body: Update) -> None:
    """Takes no context."""


async def untyped(body, ctx: Context) -> None:  # type: ignore[no-untyped-def]
    """Doesn't say what it takes."""


@pytest.mark.parametrize("function", [plain, alone, untyped])
def test_a_handler_is_async_and_takes_a_typed_body_and_a_context(function: Callable[..., object]) -> None:
    with pytest.raises(ConfigurationError, match="a handler"):
        Agent("inventory").task("update")(function)  # type: ignore[type-var]


def test_what_a_handler_honours_is_declared_as_types() -> None:
    agent = Agent("printer")

    @agent.task("print", honours=("watermark", "log"))
    async def print_(body: str, ctx: Context) -> None: ...

    @agent.call("ask", honours=["log"])
    async def ask(body: str, ctx: Context) -> str:
        return body

    @agent.on("event.desk.changed")
    async def changed(body: str, ctx: Context) -> None: ...

    assert print_.options.honours == frozenset({"watermark", "log"})
    assert (ask.options.honours, changed.options.honours) == (frozenset({"log"}), frozenset())
    for wrong in ("watermark", ("",)):
        with pytest.raises(ConfigurationError, match="honours lists types"):
            agent.task("other", honours=wrong)(print_.function)


def declare(kind: str, timeout: Any) -> None:
    agent = Agent("printer")

    async def handle(body: str, ctx: Context) -> str:
        return body

    (agent.call if kind == "call" else agent.task)("print", timeout=timeout)(handle)


@pytest.mark.parametrize(
    ("kind", "timeout"),
    [("call", 60.1), ("call", 300), ("task", 86_401), *((kind, wrong) for kind in ("call", "task")
     for wrong in (None, 0, -1, float("nan"), float("inf"), True, "30"))],
)  # fmt: skip
def test_a_timeout_is_one_that_a_message_can_live_for(kind: str, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"at most {60 if kind == 'call' else 86_400} s, not {timeout}"):
        declare(kind, timeout)


@pytest.mark.parametrize(("kind", "timeout"), [("call", 60), ("call", 0.1), ("task", 86_400), ("task", 300)])
def test_the_longest_timeout_is_allowed(kind: str, timeout: float) -> None:
    declare(kind, timeout)


def test_a_loader_that_wants_more_than_the_body_is_refused_where_it_is_declared() -> None:
    agent = Agent("shop")

    async def item(body: int, ctx: Context) -> Resource:
        del body, ctx
        return Resource("item", "1")

    async def look(body: int, ctx: Context) -> None:
        del body, ctx

    with pytest.raises(ConfigurationError, match=r"shop\.look: a resource loader takes the body"):
        agent.task("look", resource=item)(look)  # type: ignore[arg-type]  # what is refused


def test_an_option_that_a_declaration_does_not_have_is_refused() -> None:
    agent = Agent("printer")
    declarations: list[tuple[Callable[..., object], str]] = [
        (agent.task, "timeuot"),
        (agent.call, "retry"),
        (agent.on, "ordered"),
    ]
    for declare_handler, option in declarations:
        with pytest.raises(TypeError, match=option):
            declare_handler("print", **{option: 1})
    assert not agent.handlers
