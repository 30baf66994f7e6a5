"""The source of keys: who fetches, when, how often, and what counts while nothing can be fetched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer, new_key, public_jwk

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.http.problem import KeysUnavailable, TokenRefused
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
LIMITS = EdgeLimits(absent_keys=4)
FRESH = LIMITS.keys_fresh_seconds * SECOND
STALE = LIMITS.keys_stale_seconds * SECOND
COOL_DOWN = LIMITS.cool_down_seconds * SECOND
ABSENT = LIMITS.absent_key_seconds * SECOND


@pytest.fixture
async def issuer() -> AsyncIterator[LoopbackIssuer]:
    async with LoopbackIssuer() as issuer:
        yield issuer


@pytest.fixture
async def keys() -> AsyncIterator[KeySource]:
    async with KeySource(LIMITS, tls=TRUSTS_NOBODY) as keys:
        yield keys


async def find(keys: KeySource, issuer: LoopbackIssuer, kid: str | None = "key-1", *, now: int = NOW) -> dict[str, Any]:
    return (await keys.key(issuer.row(), kid, issuer.algorithm, now=now)).as_dict(private=False)


def public(issuer: LoopbackIssuer, kid: str = "key-1") -> dict[str, Any]:
    return issuer.keys[kid].as_dict(private=False)


async def refused(keys: KeySource, issuer: LoopbackIssuer, kid: str, *, now: int = NOW) -> None:
    with pytest.raises(TokenRefused) as caught:
        await find(keys, issuer, kid, now=now)
    assert caught.value.code is Code.BAD_TOKEN
    assert kid not in str(caught.value)


async def unavailable(keys: KeySource, issuer: LoopbackIssuer, kid: str = "key-1", *, now: int = NOW) -> None:
    with pytest.raises(KeysUnavailable) as caught:
        await find(keys, issuer, kid, now=now)
    error = caught.value
    assert (error.status, error.code, error.error) == (503, Code.KEYS_UNAVAILABLE, "temporarily_unavailable")
    assert error.retry_after == LIMITS.cool_down_seconds


# -- one fetch


async def test_keys_are_fetched_when_first_needed_and_then_kept(keys: KeySource, issuer: LoopbackIssuer) -> None:
    assert issuer.requests == []
    assert await find(keys, issuer) == public(issuer)
    assert await find(keys, issuer, now=NOW + FRESH - 1) == public(issuer)
    assert issuer.requests == ["/.well-known/openid-configuration", "/jwks"]


async def test_a_hundred_at_once_cause_one_fetch(keys: KeySource, issuer: LoopbackIssuer) -> None:
    issuer.key_set.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(find(keys, issuer)) for _ in range(100)]
        await issuer.asked.wait()
        issuer.key_set.gate.set()
    assert {task.result()["x"] for task in waiting} == {public(issuer)["x"]}
    assert issuer.requests == ["/.well-known/openid-configuration", "/jwks"]


async def test_a_fetch_goes_on_when_who_began_it_is_cancelled(keys: KeySource, issuer: LoopbackIssuer) -> None:
    issuer.metadata.gate = asyncio.Event()
    first = asyncio.create_task(find(keys, issuer))
    await issuer.asked.wait()
    second = asyncio.create_task(find(keys, issuer))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    issuer.metadata.gate.set()
    assert await second == public(issuer)
    assert issuer.fetches == 1


async def test_issuers_are_fetched_apart(keys: KeySource, issuer: LoopbackIssuer) -> None:
    async with LoopbackIssuer() as other:
        other.metadata.gate = asyncio.Event()
        stuck = asyncio.create_task(find(keys, other))
        await other.asked.wait()
        assert await find(keys, issuer) == public(issuer)
        assert not stuck.done()
        other.metadata.gate.set()
        assert await stuck == public(other)


async def test_leaving_ends_what_is_fetched(issuer: LoopbackIssuer) -> None:
    issuer.metadata.gate = asyncio.Event()
    async with KeySource(LIMITS, tls=TRUSTS_NOBODY) as keys:
        waiting = asyncio.create_task(find(keys, issuer))
        await issuer.asked.wait()
        name = f"keys of {issuer.issuer}"
        assert name in {task.get_name() for task in asyncio.all_tasks()}
    assert name not in {task.get_name() for task in asyncio.all_tasks()}
    with pytest.raises(KeysUnavailable):
        await waiting
    await unavailable(keys, issuer, now=NOW + COOL_DOWN)
    assert len(issuer.requests) == 1


async def test_a_jwks_uri_of_the_row_needs_no_metadata(keys: KeySource, issuer: LoopbackIssuer) -> None:
    key = await keys.key(issuer.row(jwks_uri=issuer.jwks_uri), "key-1", "ES256", now=NOW)
    assert key.as_dict(private=False) == public(issuer)
    assert issuer.requests == ["/jwks"]


# -- how long keys count


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", LIMITS.keys_fresh_seconds),
        ("public, max-age=900", 900),
        ('MAX-AGE="900"', 900),
        ("max-age=1", LIMITS.keys_fresh_least_seconds),
        ("max-age=900, no-cache", LIMITS.keys_fresh_least_seconds),
        ("no-store", LIMITS.keys_fresh_least_seconds),
        ("max-age=999999999", LIMITS.keys_fresh_most_seconds),
        ("max-age=-5", LIMITS.keys_fresh_seconds),
        ("max-age=soon, s-maxage=7", LIMITS.keys_fresh_seconds),
    ],
)
async def test_cache_control_is_honoured_within_bounds(
    said: str, seconds: int, keys: KeySource, issuer: LoopbackIssuer
) -> None:
    issuer.key_set.headers["Cache-Control"] = said
    await find(keys, issuer)
    await find(keys, issuer, now=NOW + seconds * SECOND - 1)
    assert issuer.fetches == 1
    await find(keys, issuer, now=NOW + seconds * SECOND)
    assert issuer.fetches == 2


async def test_a_withdrawn_key_is_gone_once_the_set_is_not_fresh(keys: KeySource, issuer: LoopbackIssuer) -> None:
    await find(keys, issuer)
    issuer.keys = {"key-2": new_key()}
    issuer.publish()
    await refused(keys, issuer, "key-1", now=NOW + FRESH)
    assert await find(keys, issuer, "key-2", now=NOW + FRESH) == public(issuer, "key-2")


@pytest.mark.parametrize(("early", "reads"), [(1, 1), (0, 2)])
async def test_metadata_is_read_again_after_a_while(
    early: int, reads: int, keys: KeySource, issuer: LoopbackIssuer
) -> None:
    await find(keys, issuer)
    await find(keys, issuer, now=NOW + LIMITS.metadata_seconds * SECOND - early)
    assert issuer.requests.count("/.well-known/openid-configuration") == reads
    assert issuer.fetches == 2


# -- rotation and made-up key ids


async def test_an_unknown_kid_brings_the_rotated_keys(keys: KeySource, issuer: LoopbackIssuer) -> None:
    await find(keys, issuer)
    issuer.keys["key-2"] = new_key()
    issuer.publish()
    assert await find(keys, issuer, "key-2", now=NOW + COOL_DOWN) == public(issuer, "key-2")
    assert await find(keys, issuer, "key-1", now=NOW + COOL_DOWN) == public(issuer)
    assert issuer.fetches == 2


async def test_a_flood_of_made_up_kids_causes_one_fetch_a_cool_down(keys: KeySource, issuer: LoopbackIssuer) -> None:
    for number in range(200):
        await refused(keys, issuer, f"made-up-{number}")
    assert issuer.fetches == 1
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(refused(keys, issuer, f"made-up-{number}", now=NOW + COOL_DOWN))
    assert issuer.fetches == 2
    # Good tokens never wait for it.
    issuer.key_set.gate = asyncio.Event()
    flood = asyncio.create_task(refused(keys, issuer, "made-up", now=NOW + 2 * COOL_DOWN))
    issuer.asked.clear()
    await issuer.asked.wait()
    assert await find(keys, issuer, now=NOW + 2 * COOL_DOWN) == public(issuer)
    assert not flood.done()
    issuer.key_set.gate.set()
    await flood


async def test_a_flood_hides_a_new_key_no_longer_than_the_cool_down(keys: KeySource, issuer: LoopbackIssuer) -> None:
    await find(keys, issuer)
    await refused(keys, issuer, "made-up", now=NOW + COOL_DOWN)
    issuer.keys["key-2"] = new_key()
    issuer.publish()
    await refused(keys, issuer, "key-2", now=NOW + COOL_DOWN + 1)
    assert await find(keys, issuer, "key-2", now=NOW + 2 * COOL_DOWN) == public(issuer, "key-2")


async def test_a_kid_that_was_looked_for_in_vain_causes_no_fetch_for_long(
    keys: KeySource, issuer: LoopbackIssuer
) -> None:
    issuer.key_set.headers["Cache-Control"] = "max-age=3600"
    await find(keys, issuer)
    at = NOW + COOL_DOWN
    await refused(keys, issuer, "old", now=at)
    assert issuer.fetches == 2
    await refused(keys, issuer, "old", now=at + ABSENT - 1)
    assert issuer.fetches == 2
    await refused(keys, issuer, "old", now=at + ABSENT)
    assert issuer.fetches == 3


async def test_no_more_absent_kids_are_remembered_than_allowed(keys: KeySource, issuer: LoopbackIssuer) -> None:
    issuer.key_set.headers["Cache-Control"] = "max-age=3600"
    await find(keys, issuer)
    # One more than are remembered; each is looked for.
    for number in range(LIMITS.absent_keys + 1):
        await refused(keys, issuer, f"old-{number}", now=NOW + (number + 1) * COOL_DOWN)
    at = NOW + (LIMITS.absent_keys + 2) * COOL_DOWN
    assert issuer.fetches == LIMITS.absent_keys + 2
    for number in range(1, LIMITS.absent_keys + 1):
        await refused(keys, issuer, f"old-{number}", now=at)
    assert issuer.fetches == LIMITS.absent_keys + 2
    await refused(keys, issuer, "old-0", now=at)
    assert issuer.fetches == LIMITS.absent_keys + 3


async def test_a_kid_remembered_as_absent_is_found_once_another_brings_it(
    keys: KeySource, issuer: LoopbackIssuer
) -> None:
    await find(keys, issuer)
    await refused(keys, issuer, "key-2", now=NOW + COOL_DOWN)
    issuer.keys["key-2"] = new_key()
    issuer.publish()
    await refused(keys, issuer, "made-up", now=NOW + 2 * COOL_DOWN)
    assert await find(keys, issuer, "key-2", now=NOW + 2 * COOL_DOWN) == public(issuer, "key-2")


async def test_a_kid_that_was_found_is_looked_for_again_once_it_is_gone(
    keys: KeySource, issuer: LoopbackIssuer
) -> None:
    issuer.key_set.headers["Cache-Control"] = "max-age=60"
    await find(keys, issuer)
    issuer.keys["key-2"] = new_key()
    issuer.publish()
    await find(keys, issuer, "key-2", now=NOW + COOL_DOWN)
    both = issuer.key_set.body
    del issuer.keys["key-2"]
    issuer.publish()
    gone = NOW + COOL_DOWN + 60 * SECOND
    await refused(keys, issuer, "key-2", now=gone)
    issuer.key_set.body = both
    assert (await find(keys, issuer, "key-2", now=gone + COOL_DOWN))["kty"] == "EC"


async def test_without_kid_nothing_is_looked_for(keys: KeySource, issuer: LoopbackIssuer) -> None:
    issuer.publish(public_jwk(new_key(), "another"))
    for at in (NOW, NOW + COOL_DOWN):
        with pytest.raises(TokenRefused):
            await find(keys, issuer, None, now=at)
    assert issuer.fetches == 1


# -- faults of the issuer


def slow(issuer: LoopbackIssuer) -> None:
    issuer.key_set.gate = asyncio.Event()


def slow_metadata(issuer: LoopbackIssuer) -> None:
    issuer.metadata.gate = asyncio.Event()


def huge(issuer: LoopbackIssuer) -> None:
    issuer.key_set.body += b" " * LIMITS.document_bytes


def endless(issuer: LoopbackIssuer) -> None:
    issuer.key_set.body, issuer.key_set.endless = b" " * 10_000, True


def dripping(issuer: LoopbackIssuer) -> None:
    """Never silent for as long as one read may take, and never done."""
    issuer.key_set.body, issuer.key_set.endless, issuer.key_set.pause = b" ", True, 0.02


def failing(issuer: LoopbackIssuer) -> None:
    issuer.key_set.status = 500


def redirected(issuer: LoopbackIssuer) -> None:
    issuer.key_set.status = 302
    issuer.key_set.headers["Location"] = issuer.issuer + "/.well-known/openid-configuration"


def compressed(issuer: LoopbackIssuer) -> None:
    issuer.key_set.headers["Content-Encoding"] = "gzip"


def private_key(issuer: LoopbackIssuer) -> None:
    issuer.keys["key-2"] = new_key()
    issuer.publish(issuer.keys["key-2"].as_dict(private=True, kid="key-2"))


def symmetric_key(issuer: LoopbackIssuer) -> None:
    issuer.publish({"kty": "oct", "kid": "key-2", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ"})


def nonsense(issuer: LoopbackIssuer) -> None:
    issuer.key_set.body = b"<html>"


def too_many(issuer: LoopbackIssuer) -> None:
    issuer.publish(*[public_jwk(issuer.keys["key-1"], f"key-{number}") for number in range(2, LIMITS.keys + 2)])


FAULTS = [
    slow,
    slow_metadata,
    endless,
    dripping,
    huge,
    failing,
    redirected,
    compressed,
    private_key,
    symmetric_key,
    nonsense,
    too_many,
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
async def test_without_good_keys_no_token_is_judged_and_the_issuer_is_spared(
    fault: Any, issuer: LoopbackIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    fault(issuer)
    counters = Counters()
    async with KeySource(EdgeLimits(fetch_seconds=0.3), tls=TRUSTS_NOBODY, counters=counters) as keys:
        await unavailable(keys, issuer)
        fetches = {"issuer": issuer.row().issuer}
        assert counters.value("sealbus_edge_key_fetches_total", **fetches, outcome="failed") == 1
        assert counters.value("sealbus_edge_key_fetches_total", **fetches, outcome="fetched") == 0
        asked = len(issuer.requests)
        await unavailable(keys, issuer, "key-2", now=NOW + COOL_DOWN - 1)
        assert len(issuer.requests) == asked
        assert [
            record.levelno for record in caplog.records if record.name == "sealbus.agents.edge.oauth.keys.jwks"
        ] == [logging.WARNING]
        await unavailable(keys, issuer, now=NOW + COOL_DOWN)
        assert len(issuer.requests) > asked


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_last_good_keys_count_for_a_bounded_time(fault: Any, issuer: LoopbackIssuer) -> None:
    good = public(issuer)
    async with KeySource(EdgeLimits(fetch_seconds=0.3, metadata_seconds=1), tls=TRUSTS_NOBODY) as keys:
        await find(keys, issuer)
        fault(issuer)
        assert await find(keys, issuer, now=NOW + FRESH) == good
        assert await find(keys, issuer, now=NOW + FRESH + STALE - 1) == good
        # No key of what was refused is taken, and nobody can say that it is unknown.
        await unavailable(keys, issuer, "key-2", now=NOW + FRESH + STALE - 1)
        await unavailable(keys, issuer, now=NOW + FRESH + STALE)


async def test_while_an_issuer_does_not_answer_tokens_do_not_wait_again(
    keys: KeySource, issuer: LoopbackIssuer
) -> None:
    await find(keys, issuer)
    issuer.key_set.status = 500
    await find(keys, issuer, now=NOW + FRESH)
    issuer.key_set.gate = asyncio.Event()
    issuer.asked.clear()
    # Were it waited for, this would hang: the gate is closed.
    assert await find(keys, issuer, now=NOW + FRESH + COOL_DOWN) == public(issuer)
    await issuer.asked.wait()
    issuer.key_set.status = 200
    issuer.keys["key-2"] = new_key()
    issuer.publish()
    issuer.key_set.gate.set()
    assert await find(keys, issuer, "key-2", now=NOW + FRESH + COOL_DOWN) == public(issuer, "key-2")


async def test_tokens_that_come_while_a_failed_issuer_is_asked_again_wait_for_it(
    keys: KeySource, issuer: LoopbackIssuer
) -> None:
    issuer.key_set.status = 500
    await unavailable(keys, issuer)
    issuer.key_set.status = 200
    issuer.key_set.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(find(keys, issuer, now=NOW + COOL_DOWN)) for _ in range(10)]
        issuer.asked.clear()
        await issuer.asked.wait()
        issuer.key_set.gate.set()
    assert {task.result()["x"] for task in waiting} == {public(issuer)["x"]}
    assert issuer.fetches == 2


async def test_once_the_old_keys_no_longer_count_tokens_wait_for_new_ones(
    keys: KeySource, issuer: LoopbackIssuer
) -> None:
    await find(keys, issuer)
    issuer.key_set.status = 500
    await find(keys, issuer, now=NOW + FRESH)
    issuer.key_set.status = 200
    assert await find(keys, issuer, now=NOW + FRESH + STALE) == public(issuer)


async def test_while_an_issuer_does_not_answer_only_what_may_be_new_is_its_fault(
    keys: KeySource, issuer: LoopbackIssuer
) -> None:
    await find(keys, issuer)
    await refused(keys, issuer, "old", now=NOW + COOL_DOWN)
    issuer.key_set.status = 500
    await unavailable(keys, issuer, "new", now=NOW + 2 * COOL_DOWN)
    await refused(keys, issuer, "old", now=NOW + 2 * COOL_DOWN)
    with pytest.raises(TokenRefused):
        await keys.key(issuer.row(), None, "RS256", now=NOW + 2 * COOL_DOWN)


async def test_slowness_has_a_name(issuer: LoopbackIssuer, caplog: pytest.LogCaptureFixture) -> None:
    slow(issuer)
    async with KeySource(EdgeLimits(fetch_seconds=0.1), tls=TRUSTS_NOBODY) as keys:
        await unavailable(keys, issuer)
    # Either deadline may be the first: that of the whole, or that of one read.
    assert any(reason in caplog.text for reason in ("too slow", "ReadTimeout"))


async def test_after_a_failure_the_key_set_may_have_moved(keys: KeySource, issuer: LoopbackIssuer) -> None:
    await find(keys, issuer)
    issuer.key_set.status = 404
    await find(keys, issuer, now=NOW + FRESH)
    issuer.asked.clear()
    await find(keys, issuer, now=NOW + FRESH + COOL_DOWN)
    await issuer.asked.wait()
    assert issuer.requests[3:] == ["/.well-known/openid-configuration"]


async def test_an_issuer_that_is_not_there(keys: KeySource) -> None:
    async with LoopbackIssuer() as gone:
        pass
    await unavailable(keys, gone)


async def test_logs_name_issuer_and_reason_and_hold_no_key(
    keys: KeySource, issuer: LoopbackIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="sealbus")
    private_key(issuer)
    await unavailable(keys, issuer)
    assert f"keys of issuer {issuer.issuer} not refreshed: key set: it holds a private or symmetric key" in caplog.text
    assert str(issuer.keys["key-2"].as_dict(private=True)["d"]) not in caplog.text


async def test_a_clock_that_was_set_back_does_not_stop_fetching(keys: KeySource, issuer: LoopbackIssuer) -> None:
    issuer.key_set.status = 500
    await unavailable(keys, issuer)
    issuer.key_set.status = 200
    assert await find(keys, issuer, now=NOW - 3_600 * SECOND) == public(issuer)
