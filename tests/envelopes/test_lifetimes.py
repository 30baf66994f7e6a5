"""How long readers let contexts and chains live: the defaults, and what the format does not allow."""

from __future__ import annotations

from typing import Any

import pytest
from support.envelopes import HOUR

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, FORMAT_LIFETIMES, Lifetimes

DAY = 24 * HOUR


def test_a_context_starts_chains_for_an_hour_and_lives_for_eight() -> None:
    assert Lifetimes() == DEFAULT_LIFETIMES
    assert (DEFAULT_LIFETIMES.context_start, DEFAULT_LIFETIMES.context_life) == (HOUR, 8 * HOUR)
    assert (DEFAULT_LIFETIMES.chain_life, DEFAULT_LIFETIMES.chain_after) == (DAY, None)


def test_the_format_allows_a_day() -> None:
    assert Lifetimes(context_start=DAY, context_life=DAY, chain_life=DAY, chain_after=None) == FORMAT_LIFETIMES
    Lifetimes(context_start=1, context_life=1, chain_life=1, chain_after=0)
    Lifetimes(chain_after=DAY)


@pytest.mark.parametrize(
    "change",
    [
        *({name: wrong} for name in ("context_start", "context_life", "chain_life") for wrong in (0, DAY + 1)),
        {"chain_after": -1},
        {"chain_after": DAY + 1},
    ],
)
def test_what_the_format_does_not_allow_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        Lifetimes(**change)
