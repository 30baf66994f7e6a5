"""That a key signed a token is remembered; all else is checked each time, and no token is kept."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.issuer import PATIENT, TRUSTS_NOBODY, LoopbackIssuer, new_key

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens import access_token
from sealbus.agents.edge.oauth.tokens.access_token import AccessTokenVerifier
from sealbus.agents.edge.oauth.tokens.jwt import is_signed
from sealbus.envelopes.errors import Code

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
HOUR = 3_600 * SECOND


@pytest.fixture
async def issuer() -> AsyncIterator[LoopbackIssuer]:
    async with LoopbackIssuer() as issuer:
        yield issuer


@pytest.fixture
async def verifier(issuer: LoopbackIssuer) -> AsyncIterator[AccessTokenVerifier]:
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        yield AccessTokenVerifier([issuer.row()], keys)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was verified, in order."""
    done: list[object] = []

    def noting(*arguments: Any) -> bool:
        done.append(arguments)
        return is_signed(*arguments)

    monkeypatch.setattr(access_token, "is_signed", noting)
    return done


async def code(verifier: AccessTokenVerifier, token: str, now: int = NOW) -> str:
    with pytest.raises(EdgeError) as refused:
        await verifier.verify(token, now=now)
    return str(refused.value.code)


async def test_a_signature_is_verified_once(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier, verified: list[object]
) -> None:
    token = issuer.token(now=NOW)
    first = await verifier.verify(token, now=NOW)
    assert await verifier.verify(token, now=NOW) == first
    assert len(verified) == 1
    await verifier.verify(issuer.token(now=NOW, jti="another"), now=NOW)
    assert len(verified) == 2


async def test_its_times_count_each_time(issuer: LoopbackIssuer, verifier: AccessTokenVerifier) -> None:
    token = issuer.token(now=NOW, life=60)
    await verifier.verify(token, now=NOW + 60 * SECOND - 1)
    assert await code(verifier, token, NOW + 60 * SECOND) == Code.TOKEN_EXPIRED


async def test_a_token_with_another_signature_is_another_token(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier
) -> None:
    token = issuer.token(now=NOW)
    await verifier.verify(token, now=NOW)
    head, _, signature = token.rpartition(".")
    for other in (head, f"{head}.", f"{head}.{'A' * 86}", f"{head}.{signature[:-1]}", token + "A", token + "\ud800"):
        assert await code(verifier, other) == Code.BAD_TOKEN


async def test_what_is_refused_is_not_remembered(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier, verified: list[object]
) -> None:
    forged = issuer.token(now=NOW, key=new_key())
    for _ in range(2):
        assert await code(verifier, forged) == Code.BAD_TOKEN
    assert len(verified) == 2


async def test_a_key_that_its_issuer_replaced_or_withdrew_signs_nothing_any_more(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier, verified: list[object]
) -> None:
    token = issuer.token(now=NOW, life=86_400)
    await verifier.verify(token, now=NOW)
    later = NOW + 2 * HOUR
    # The same key, read anew: it is verified again, and then remembered for that reading.
    for _ in range(2):
        await verifier.verify(token, now=later)
    assert len(verified) == 2
    issuer.keys["key-1"] = new_key()
    issuer.publish()
    assert await code(verifier, token, later + 2 * HOUR) == Code.BAD_TOKEN
    assert await code(verifier, token, later + 2 * HOUR) == Code.BAD_TOKEN
    issuer.keys = {"key-2": new_key()}
    issuer.publish()
    assert await code(verifier, token, later + 4 * HOUR) == Code.BAD_TOKEN


async def test_the_oldest_gives_way_and_long_ones_are_not_remembered(
    issuer: LoopbackIssuer, verified: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = (issuer.token(now=NOW, jti=f"token-{n}") for n in range(3))
    longest = len(issuer.token(now=NOW, jti="token-0"))
    monkeypatch.setattr(access_token, "_REMEMBERED", 2)
    monkeypatch.setattr(access_token, "_REMEMBERED_BYTES", longest)
    async with KeySource(PATIENT, tls=TRUSTS_NOBODY) as keys:
        verifier = AccessTokenVerifier([issuer.row()], keys)
        for token in (one, two, three, three, two):
            await verifier.verify(token, now=NOW)
        assert len(verified) == 3
        await verifier.verify(one, now=NOW)
        assert len(verified) == 4
        long = issuer.token(now=NOW, jti="token-00")
        assert len(long) > longest
        for _ in range(2):
            await verifier.verify(long, now=NOW)
        assert len(verified) == 6


async def test_refused_tokens_push_out_none_that_are_taken(
    issuer: LoopbackIssuer,
    verifier: AccessTokenVerifier,
    verified: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_token, "_REMEMBERED", 2)
    good = issuer.token(now=NOW)
    await verifier.verify(good, now=NOW)
    for number in range(3):
        stranger = issuer.token(now=NOW, jti=f"token-{number}", aud="https://other.example")
        assert await code(verifier, stranger) == Code.TOKEN_AUDIENCE
    assert len(verified) == 4
    await verifier.verify(good, now=NOW)
    assert len(verified) == 4


@pytest.mark.parametrize("one", [{}, [], "ab", {"a": 1}, 7])
async def test_what_takes_much_memory_is_not_remembered(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier, verified: list[object], one: object
) -> None:
    for number, count in enumerate((50, 150)):
        token = issuer.token(now=NOW, jti=f"token-{number}", roles=[one] * count)
        assert len(token) < access_token._REMEMBERED_BYTES
        for _ in range(2):
            await verifier.verify(token, now=NOW)
        assert len(verified) == (1, 3)[number]


async def test_the_most_values_of_what_is_remembered(
    issuer: LoopbackIssuer, verifier: AccessTokenVerifier, verified: list[object]
) -> None:
    payload = urlsafe_b64decode(issuer.token(now=NOW, roles=[7]).split(".")[1] + "==")
    more = access_token._REMEMBERED_VALUES - sum(map(payload.count, (b",", b"{", b"[")))
    for number, count in enumerate((1 + more, 2 + more)):
        token = issuer.token(now=NOW, roles=[7] * count)
        for _ in range(2):
            await verifier.verify(token, now=NOW)
        assert len(verified) == (1, 3)[number]


async def test_no_token_is_kept(issuer: LoopbackIssuer, verifier: AccessTokenVerifier) -> None:
    token = issuer.token(now=NOW)
    await verifier.verify(token, now=NOW)
    assert token.rpartition(".")[2] not in repr(vars(verifier))
