from __future__ import annotations

import pytest

from sealbus.agents.edge.errors import EdgeError
from sealbus.agents.edge.front import Exposed
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.names import Names
from sealbus.envelopes.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))


def test_what_is_shown_is_what_the_settings_list() -> None:
    exposed = Exposed(["inventory.*", "pricing.quote"], NAMES)
    assert exposed.action("inventory", "update") == "inventory.update"
    assert exposed.action("pricing", "quote") == "pricing.quote"
    for agent, verb in [("pricing", "set"), ("planner", "plan"), ("inventory", "*"), ("inventory", "a.b"), ("", "x")]:
        with pytest.raises(EdgeError) as caught:
            exposed.action(agent, verb)
        assert caught.value.status == 404


@pytest.mark.parametrize("pattern", ["*", "*.*", "inventory", "a.b.c", "inventory.up*", ".x", "a b.c", "id-x.*", ">"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError):
        Exposed([pattern], NAMES)
