"""Claims of effects in STATE: one process runs a handler, and who comes later learns what came of it."""

from __future__ import annotations

import asyncio

import pytest
from support.claims import MARGIN, Site

from sealbus.bus.sending.message import Content
from sealbus.bus.work.idempotency.claim import Stage, StoredClaim, unsigned
from sealbus.bus.work.idempotency.claim_store import AlreadyDone, BusyEffect, Claim, ClaimStore
from sealbus.envelopes.errors import (
    BusUnavailable,
    Code,
    HandlingError,
    IdentityUnavailable,
    StateUnavailable,
)
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer

RESULT = Content(body=b'{"a":1}', typ="application/json")
ASKED = Claim(key=bytes(32), dig=b"d" * 32, first=b"f" * 32)
COPY = Claim(key=bytes(32), dig=b"d" * 32, first=b"g" * 32)
OTHER_BODY = Claim(key=bytes(32), dig=b"e" * 32, first=b"g" * 32)
SUBJECT = f"state.inventory.effect.{ASKED.key.hex()}"
TIMEOUT = 30.0


@pytest.fixture
def site() -> Site:
    return Site()


async def claimed_by(process: ClaimStore, asked: Claim = ASKED) -> Claim:
    claimed = await process.claim(asked, TIMEOUT)
    assert isinstance(claimed, Claim)
    return claimed


async def test_what_is_claimed_once_is_done_for_everybody(site: Site) -> None:
    one, two = site.process(1), site.process(2)
    await one.mark(await claimed_by(one), Stage.DONE, RESULT)
    assert await two.claim(ASKED, TIMEOUT) == AlreadyDone(result=RESULT, same=True, told=False)
    assert await two.claim(COPY, TIMEOUT) == AlreadyDone(result=RESULT, same=False, told=False)


async def test_without_a_kept_result_only_the_first_copy_was_told(site: Site) -> None:
    one, two = site.process(1), site.process(2)
    await one.mark(await claimed_by(one), Stage.DONE, None)
    assert await two.claim(ASKED, TIMEOUT) == AlreadyDone(result=None, same=True, told=True)
    assert await two.claim(COPY, TIMEOUT) == AlreadyDone(result=None, same=False, told=False)


async def test_of_many_processes_one_claims(site: Site) -> None:
    async def claim(number: int) -> bool:
        try:
            await claimed_by(site.process(number))
        except BusyEffect:
            return False
        return True

    assert sum(await asyncio.gather(*(claim(number) for number in range(1, 9)))) == 1


async def test_another_body_is_a_conflict_whatever_became_of_the_first(site: Site) -> None:
    one, two = site.process(1), site.process(2)
    claimed = await claimed_by(one)
    for stage in (Stage.STARTED, Stage.FREE):
        with pytest.raises(HandlingError) as refused:
            await two.claim(OTHER_BODY, TIMEOUT)
        assert refused.value.code is Code.IDEMPOTENCY_CONFLICT
        if stage is Stage.STARTED:
            await one.mark(claimed, Stage.FREE, None)


async def test_a_claim_that_was_given_back_is_claimed_again(site: Site) -> None:
    one, two = site.process(1), site.process(2)
    await one.mark(await claimed_by(one), Stage.FREE, None)
    again = await claimed_by(two)
    await two.mark(again, Stage.DONE, RESULT)
    assert isinstance(await one.claim(ASKED, TIMEOUT), AlreadyDone)


async def test_who_finds_it_started_waits_for_the_handlers_time(site: Site) -> None:
    one, two = site.process(1), site.process(2)
    await claimed_by(one)
    site.now += 5 * SECOND
    with pytest.raises(BusyEffect) as busy:
        await two.claim(ASKED, TIMEOUT)
    assert busy.value.seconds == TIMEOUT + MARGIN - 5


async def test_what_a_gone_process_began_is_never_handled_again(site: Site) -> None:
    one, two = site.process(1), site.process(2)
    claimed = await claimed_by(one)
    site.now += int((TIMEOUT + MARGIN) * SECOND)
    for process in (two, site.process(3), one):
        with pytest.raises(HandlingError) as refused:
            await process.claim(ASKED, TIMEOUT)
        assert refused.value.code is Code.OUTCOME_UNKNOWN
    await one.mark(claimed, Stage.DONE, RESULT)
    assert site.counters.value("sealbus_effects_unmarked_total", stage="done", reason="replaced") == 1
    with pytest.raises(HandlingError):
        await two.claim(ASKED, TIMEOUT)


async def test_a_process_takes_its_own_claim_over_if_that_it_was_stored_was_not_heard_of(site: Site) -> None:
    one = site.process(1)
    site.transport.unheard = True
    with pytest.raises(StateUnavailable):
        await one.claim(ASKED, TIMEOUT)
    site.transport.unheard = False
    other = site.process(2)
    for look in (other.claim(ASKED, TIMEOUT), other.may_have_happened(ASKED)):
        with pytest.raises(BusyEffect):
            await look
    assert not await one.may_have_happened(ASKED)
    await one.mark(await claimed_by(one), Stage.DONE, None)
    assert await other.may_have_happened(ASKED)
    assert isinstance(await one.claim(ASKED, TIMEOUT), AlreadyDone)


async def test_a_process_takes_its_own_claim_over_if_it_could_not_be_given_back(site: Site) -> None:
    one = site.process(1)
    claimed = await claimed_by(one)
    site.broker.fail("STATE", BusUnavailable("away"))
    await one.mark(claimed, Stage.FREE, None)
    site.broker.fail("STATE", None)
    assert (await claimed_by(one)).last


async def test_what_has_happened_does_not_again_in_its_own_process_though_the_mark_was_lost(site: Site) -> None:
    """Also not once the process has forgotten it: what it knows of what it handled is bounded."""
    one = site.process(1)
    claimed = await claimed_by(one)
    site.broker.fail("STATE", BusUnavailable("away"))
    await one.mark(claimed, Stage.DONE, RESULT)
    site.broker.fail("STATE", None)
    with pytest.raises(BusyEffect):
        await one.claim(ASKED, TIMEOUT)
    site.now += int((TIMEOUT + MARGIN) * SECOND)
    with pytest.raises(HandlingError) as refused:
        await one.claim(ASKED, TIMEOUT)
    assert refused.value.code is Code.OUTCOME_UNKNOWN


@pytest.mark.parametrize("stage", [Stage.FREE, Stage.DONE])
async def test_what_others_wrote_is_neither_free_nor_done(site: Site, stage: Stage) -> None:
    one = site.process(1)
    claim = StoredClaim(
        key=ASKED.key, dig=ASKED.dig, first=ASKED.first, by=bytes(16), stage=stage, at=site.now, until=site.now
    )
    await site.keyed.create(SUBJECT, unsigned(claim))
    with pytest.raises(HandlingError) as refused:
        await one.claim(ASKED, TIMEOUT)
    assert refused.value.code is Code.OUTCOME_UNKNOWN


@pytest.mark.parametrize("stored", [b"", b"junk"])
async def test_a_claim_that_cannot_be_read_is_not_handled(site: Site, stored: bytes) -> None:
    await site.keyed.create(SUBJECT, stored)
    with pytest.raises(HandlingError) as refused:
        await site.process(1).claim(ASKED, TIMEOUT)
    assert refused.value.code is Code.OUTCOME_UNKNOWN


async def test_a_claim_of_another_effect_is_not_taken_for_this_one(site: Site) -> None:
    one = site.process(1)
    other = Claim(key=b"k" * 32, dig=ASKED.dig, first=ASKED.first)
    await one.mark(await claimed_by(one, other), Stage.DONE, RESULT)
    found = await site.keyed.get(SUBJECT.replace(ASKED.key.hex(), other.key.hex()))
    assert found is not None
    await site.keyed.create(SUBJECT, found.payload)
    with pytest.raises(HandlingError) as refused:
        await one.claim(ASKED, TIMEOUT)
    assert refused.value.code is Code.OUTCOME_UNKNOWN


async def test_nothing_is_claimed_while_the_stream_does_not_answer(site: Site) -> None:
    site.broker.fail("STATE", BusUnavailable("away"))
    with pytest.raises(StateUnavailable):
        await site.process(1).claim(ASKED, TIMEOUT)


async def test_a_mark_that_cannot_be_stored_is_counted(site: Site) -> None:
    one = site.process(1)
    claimed = await claimed_by(one)
    site.broker.fail("STATE", BusUnavailable("away"))
    await one.mark(claimed, Stage.DONE, RESULT)
    assert site.counters.value("sealbus_effects_unmarked_total", stage="done", reason="bus_unavailable") == 1


async def test_a_mark_whose_answer_was_lost_is_none_that_failed(site: Site) -> None:
    one = site.process(1)
    claimed = await claimed_by(one)
    await one.mark(claimed, Stage.DONE, None)
    await one.mark(claimed, Stage.DONE, None)
    assert "sealbus_effects_unmarked_total" not in site.counters.render()


def no_identity() -> Sealer:
    raise IdentityUnavailable("expired")


async def test_an_effect_that_was_marked_without_an_identity_is_not_handled_again(site: Site) -> None:
    one = site.process(1, no_identity)
    await one.mark(await claimed_by(one), Stage.DONE, RESULT)
    for process in (one, site.process(2)):
        with pytest.raises(HandlingError) as refused:
            await process.claim(ASKED, TIMEOUT)
        assert refused.value.code is Code.OUTCOME_UNKNOWN


async def test_without_an_identity_a_claim_is_not_given_back_to_others(site: Site) -> None:
    one = site.process(1, no_identity)
    await one.mark(await claimed_by(one), Stage.FREE, None)
    reason = "identity_unavailable"
    assert site.counters.value("sealbus_effects_unmarked_total", stage="free", reason=reason) == 1
    with pytest.raises(BusyEffect):
        await site.process(2).claim(ASKED, TIMEOUT)
    assert (await claimed_by(one)).last


async def test_what_was_claimed_may_have_happened_unless_it_was_given_back(site: Site) -> None:
    one, two = site.process(1), site.process(2)
    assert not await two.may_have_happened(ASKED)
    claimed = await claimed_by(one)
    with pytest.raises(BusyEffect) as busy:
        await two.may_have_happened(ASKED)
    assert busy.value.seconds == TIMEOUT + MARGIN
    await one.mark(claimed, Stage.FREE, None)
    assert not await two.may_have_happened(ASKED)
    await two.mark(await claimed_by(two), Stage.DONE, None)
    assert await one.may_have_happened(ASKED)


async def test_what_a_gone_process_began_may_have_happened(site: Site) -> None:
    two = site.process(2)
    await claimed_by(site.process(1))
    site.now += int((TIMEOUT + MARGIN) * SECOND)
    assert await two.may_have_happened(ASKED)
    with pytest.raises(HandlingError):
        await two.claim(ASKED, TIMEOUT)
    assert await two.may_have_happened(ASKED)


@pytest.mark.parametrize("copy", [COPY, OTHER_BODY], ids=["copy", "other body"])
async def test_what_happened_for_another_message_did_not_for_this(site: Site, copy: Claim) -> None:
    one, two = site.process(1), site.process(2)
    await one.mark(await claimed_by(one), Stage.DONE, RESULT)
    assert not await two.may_have_happened(copy)


async def test_a_claim_that_nobody_can_read_may_have_happened(site: Site) -> None:
    await site.keyed.create(SUBJECT, b"of a newer version")
    assert await site.process(1).may_have_happened(ASKED)
    site.broker.fail("STATE", BusUnavailable("away"))
    with pytest.raises(StateUnavailable):
        await site.process(1).may_have_happened(ASKED)
