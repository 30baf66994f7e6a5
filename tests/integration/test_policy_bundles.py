"""From a push to force, in the embedded engine and in a real OPA that polls the policy server, and back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.policy_bus import ANCHORS, ROOT
from support.policy_engines import STOCK, deployment, two_teams
from support.teams import signed_team, team_policy

from sealbus.agents.runtime.policy.deny_list import Denial, add, forget
from sealbus.agents.runtime.policy.push import (
    Pushed,
    change_platform,
    content_of,
    push_content,
    push_denial,
    push_signed,
    roll_back,
)
from sealbus.policies.bundle.files import STARTER

pytestmark = [pytest.mark.nats, pytest.mark.opa]

PLANNER = "spiffe://example.org/agent/planner"


async def test_a_push_comes_in_force_in_both_and_back_again(tmp_path: Path) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await running_.until("platform-1.money-1.stock-1")
        assert await running_.decided("inventory.read") == (True, ())
        denying = team_policy("stock", allow='request.action.name == "inventory.none"')
        await push_signed(running_.store, ANCHORS, "stock", signed_team("stock", STOCK, denying, serial=2))
        await running_.until("platform-1.money-1.stock-2")
        assert await running_.decided("inventory.read") == (False, ("not_stock",))
        # What one team pushed is nothing to the other.
        assert await running_.decided("pricing.quote") == (True, ())
        await roll_back(running_.store, ANCHORS, "stock", 1, STOCK)
        await running_.until("platform-1.money-1.stock-3")
        assert await running_.decided("inventory.read") == (True, ())


@pytest.mark.parametrize("push", [change_platform, push_denial])
async def test_a_denial_acts_at_the_next_message_in_whole_policies_and_above_teams(
    tmp_path: Path, push: Callable[..., Awaitable[Pushed]]
) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await running_.until("platform-1.money-1.stock-1")
        await push(running_.store, ANCHORS, add(Denial(kind="workload", id=PLANNER, at="now")), ROOT)
        await running_.until("platform-2.money-1.stock-1")
        assert await running_.decided("inventory.read") == (False, ("revoked_agent",))
        # The starter policy is whole: the teams are gone with it, and who is denied is not.
        await push_content(running_.store, ANCHORS, "platform", content_of(STARTER), ROOT)
        await running_.until("platform-3")
        assert await running_.decided("pricing.quote") == (False, ("revoked_agent",))
        await change_platform(running_.store, ANCHORS, forget("workload", PLANNER), ROOT)
        await running_.until("platform-4")
        assert await running_.decided("pricing.quote") == (True, ())
