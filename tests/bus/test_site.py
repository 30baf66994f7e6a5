"""A site is one identity, and the name of this identity in subjects follows from it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from support.acceptance import EDGE_ID, INVENTORY
from support.envelopes import NAMES, NOW, agent
from support.identity import StaticIdentity
from support.sites import site_of
from support.x509 import ThrowawayCa

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.site import Site

SITE = site_of(MemoryBroker(lambda: NOW).connect(), lambda: NOW)


def site_with(spiffe_id: str) -> Site:
    return replace(SITE, identity=StaticIdentity(ThrowawayCa("example.org"), spiffe_id))


def test_a_site_has_the_id_and_the_token_of_its_identity() -> None:
    assert (SITE.own, SITE.token) == (INVENTORY, "inventory")
    # The template of the names covers agents only: the token of another workload is a hash of its id.
    for spiffe_id, token in ((agent("planner"), "planner"), (EDGE_ID, NAMES.token(EDGE_ID))):
        other = site_with(spiffe_id.value)
        assert (other.own, other.token) == (spiffe_id, token)


def test_a_site_without_a_tracer_makes_no_spans() -> None:
    assert SITE.tracer is None


def test_a_part_of_the_process_cannot_change_the_site_of_the_others() -> None:
    with pytest.raises(FrozenInstanceError):
        SITE.identity = site_with(EDGE_ID.value).identity  # type: ignore[misc]  # that is tested
    assert SITE.own == INVENTORY
