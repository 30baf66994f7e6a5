"""What one process remembers of effects: bounded, by idempotency key, and in STATE where a handler says `once`."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from support.acceptance import Message
from support.audit import opened
from support.claims import Site
from support.shop import Shop

from sealbus.agents.runtime.endpoint import HandlerEndpoint
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.routes import HandlerOptions, Permitted, Route
from sealbus.bus.sending.message import Content
from sealbus.bus.work.idempotency.claim_store import AlreadyDone, BusyEffect, Claim
from sealbus.bus.work.idempotency.effects import REMEMBERED_BYTES, Effects, effect_key
from sealbus.envelopes.errors import BusUnavailable, Code, HandlingError, StateUnavailable
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.user_context import SubjectType

RESULT = Content(body=b'{"a":1}', typ="application/json")
BODY = b'{"item":"42"}'


def task(*, number: int = 2, idm: str | None = "order-7", body: bytes = BODY, **fields: object) -> Message:
    """Return a task of the planner; `number` is in its body's header as `tid`, so that each is sealed differently."""
    return Message(body=body, fields={"idm": idm, "tid": bytes([number] * 16), "dig": sha256(body).digest(), **fields})


def permitted(message: Message, *, once: bool = False) -> Permitted:
    shop = Shop()
    route = Route(
        kind=Kind.TASK,
        subject="task.inventory.update",
        action="inventory.update",
        endpoint=HandlerEndpoint(shop.inventory.handlers["task.inventory.update"], None, Kind.TASK),  # type: ignore[arg-type]
        options=HandlerOptions(retry=RetryPolicy(), once=once),
    )
    return Permitted(
        message=opened(message), value=None, route=route, leaf=bytes(32), sent=[], cancellation=Cancellation()
    )


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def effects(site: Site) -> Effects:
    return Effects(site.process(1))


async def begin(effects: Effects, message: Message, *, once: bool = False) -> Claim:
    claim = await effects.begin(permitted(message, once=once))
    assert isinstance(claim, Claim)
    return claim


def test_a_message_without_a_key_is_its_own_effect() -> None:
    message = opened(task(idm=None))
    assert effect_key(message) == message.header.digest
    assert effect_key(opened(task(idm=None, number=3))) != message.header.digest


def test_one_key_is_one_effect_whatever_else_differs() -> None:
    key = effect_key(opened(task()))
    assert effect_key(opened(task(number=3))) == key
    assert effect_key(opened(task(body=b"{}"))) == key
    assert effect_key(opened(task(idm="order-8"))) != key


def test_another_user_or_sender_has_keys_of_its_own() -> None:
    message = opened(task())
    assert message.context is not None
    keys = {
        effect_key(one)
        for one in (
            message,
            message._replace(context=None),
            message._replace(context=replace(message.context, sub="u-2")),
            message._replace(context=replace(message.context, idp="https://other.example")),
            message._replace(context=replace(message.context, typ=SubjectType.CLIENT)),
            message._replace(context=replace(message.context, typ=SubjectType.WORKLOAD)),
            message._replace(header=message.header._replace(to="task.inventory.update.2")),
            message._replace(header=message.header._replace(iss=message.chain[0].iss)),
        )
    }
    assert len(keys) == 8


@pytest.mark.parametrize("once", [False, True])
async def test_a_copy_waits_until_the_end_of_the_first_was_told(effects: Effects, once: bool) -> None:
    """Acknowledged before, it would leave nobody to tell the end if this process died."""
    claim = await begin(effects, task(), once=once)
    await effects.done(claim, RESULT)
    for message in (task(), task(number=3)):
        with pytest.raises(BusyEffect):
            await effects.begin(permitted(message, once=once))
    effects.untold(claim)
    untold = AlreadyDone(result=RESULT, same=True, told=False)
    assert await effects.begin(permitted(task(), once=once)) == untold
    assert await effects.begin(permitted(task(number=3), once=once)) == replace(untold, same=False)


@pytest.mark.parametrize("once", [False, True])
async def test_what_was_handled_is_not_handled_again(effects: Effects, once: bool) -> None:
    claim = await begin(effects, task(), once=once)
    await effects.done(claim, RESULT)
    effects.told(claim)
    assert await effects.begin(permitted(task(), once=once)) == AlreadyDone(result=RESULT, same=True, told=True)
    assert await effects.begin(permitted(task(number=3), once=once)) == AlreadyDone(
        result=RESULT, same=False, told=False
    )


@pytest.mark.parametrize("once", [False, True])
async def test_the_same_key_with_another_body_is_a_conflict(effects: Effects, once: bool) -> None:
    claim = await begin(effects, task(), once=once)
    for _ in ("running", "done"):
        with pytest.raises(HandlingError) as refused:
            await effects.begin(permitted(task(body=b"{}"), once=once))
        assert refused.value.code is Code.IDEMPOTENCY_CONFLICT
        await effects.done(claim, RESULT)


@pytest.mark.parametrize("once", [False, True])
async def test_a_copy_waits_while_the_first_is_handled(effects: Effects, once: bool) -> None:
    claim = await begin(effects, task(), once=once)
    with pytest.raises(BusyEffect):
        await effects.begin(permitted(task(number=3), once=once))
    await effects.failed(claim)
    await begin(effects, task(number=3), once=once)


async def test_a_large_result_is_not_remembered(effects: Effects) -> None:
    large = Content(body=bytes(REMEMBERED_BYTES + 1), typ="application/json")
    claim = await begin(effects, task())
    await effects.done(claim, large)
    effects.told(claim)
    assert await effects.begin(permitted(task(number=3))) == AlreadyDone(result=None, same=False, told=False)


async def test_only_once_outlives_the_process(effects: Effects, site: Site) -> None:
    await effects.done(await begin(effects, task(idm="a"), once=False), RESULT)
    await effects.done(await begin(effects, task(idm="b"), once=True), RESULT)
    other = Effects(site.process(2))
    assert isinstance(await other.begin(permitted(task(idm="a"))), Claim)
    assert await other.begin(permitted(task(idm="b"), once=True)) == AlreadyDone(result=RESULT, same=True, told=False)


async def test_what_cannot_be_claimed_is_asked_for_again(effects: Effects, site: Site) -> None:
    site.broker.fail("STATE", BusUnavailable("away"))
    for _ in range(2):
        with pytest.raises(StateUnavailable):
            await effects.begin(permitted(task(), once=True))
    site.broker.fail("STATE", None)
    await begin(effects, task(), once=True)


async def test_without_once_nothing_is_stored(effects: Effects, site: Site) -> None:
    await effects.done(await begin(effects, task()), RESULT)
    assert not site.broker.streams["STATE"].stored


async def test_what_this_process_handled_may_have_happened(effects: Effects) -> None:
    message, copy = opened(task()), opened(task(number=3))
    assert not await effects.may_have_happened(message, once=False)
    claim = await begin(effects, task())
    with pytest.raises(BusyEffect):
        await effects.may_have_happened(message, once=False)
    assert not await effects.may_have_happened(copy, once=False)
    await effects.done(claim, RESULT)
    effects.untold(claim)
    assert await effects.may_have_happened(message, once=False)
    assert not await effects.may_have_happened(copy, once=False)


async def test_who_was_told_is_remembered(effects: Effects) -> None:
    message, copy = opened(task()), opened(task(number=3))
    claim = await begin(effects, task())
    assert not effects.was_told(message)
    await effects.done(claim, RESULT)
    assert not effects.was_told(message)
    effects.untold(claim)
    assert not effects.was_told(message)
    effects.told(claim)
    assert effects.was_told(message)
    assert not effects.was_told(copy)


@pytest.mark.parametrize("once", [False, True])
async def test_what_another_process_handled_may_have_happened_only_if_it_was_claimed(site: Site, once: bool) -> None:
    first, second = Effects(site.process(1)), Effects(site.process(2))
    await first.done(await begin(first, task(), once=once), RESULT)
    assert await second.may_have_happened(opened(task()), once=once) is once
