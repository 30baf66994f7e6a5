"""The collector's settings are those that were measured."""

from __future__ import annotations

import gc

from sealbus.agents.runtime.worker import YOUNG, settle_collector


def test_start_up_is_set_aside_and_the_young_are_looked_at_less_often() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        settle_collector()
        assert gc.get_threshold()[0] == YOUNG > before[0]
        assert gc.get_threshold()[1] * YOUNG <= 100_000  # looked at together, while nothing else happens
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
