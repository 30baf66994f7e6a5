from __future__ import annotations

from dataclasses import replace

import pytest

from sealbus.agents.edge.access_token import AccessToken
from sealbus.agents.edge.errors import TokenRefused
from sealbus.agents.edge.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.remembered import RememberedTokens

SECOND = 1_000_000


class Verifier:
    """Takes every token but `bad`, which ends at second 100."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def verify(self, token: str, *, now: int) -> AccessToken:
        self.asked.append(token)
        if token == "bad" or now >= 100 * SECOND:
            raise TokenRefused("no")
        return AccessToken(
            issuer="i",
            subject=token,
            client="c",
            session="s",
            scope=(),
            claims={},
            tenant=None,
            acr=None,
            amr=None,
            auth_time=None,
            issued=0,
            expires=100 * SECOND,
        )


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
def remembered(verifier: Verifier) -> RememberedTokens:
    return RememberedTokens(verifier, replace(DEFAULT_EDGE_LIMITS, remembered=2, remembered_seconds=30))


async def test_a_token_is_verified_once_in_a_while(verifier: Verifier, remembered: RememberedTokens) -> None:
    for now in (0, 29 * SECOND):
        assert (await remembered.verify("a", now=now)).subject == "a"
    assert verifier.asked == ["a"]
    await remembered.verify("a", now=30 * SECOND)
    assert verifier.asked == ["a", "a"]
    # The clock was set back.
    await remembered.verify("a", now=0)
    assert verifier.asked == ["a"] * 3


async def test_never_beyond_its_end(verifier: Verifier, remembered: RememberedTokens) -> None:
    await remembered.verify("a", now=90 * SECOND)
    with pytest.raises(TokenRefused):
        await remembered.verify("a", now=100 * SECOND)
    assert len(remembered) == 0


async def test_what_is_refused_is_asked_about_each_time(verifier: Verifier, remembered: RememberedTokens) -> None:
    for _ in range(2):
        with pytest.raises(TokenRefused):
            await remembered.verify("bad", now=0)
    assert verifier.asked == ["bad", "bad"]


async def test_the_oldest_goes(verifier: Verifier, remembered: RememberedTokens) -> None:
    for token in ("a", "b", "c", "c", "a"):
        assert (await remembered.verify(token, now=0)).subject == token
    assert verifier.asked == ["a", "b", "c", "a"]
    assert len(remembered) == 2
