"""The agent `console`: who may look is the policy's to say, and nobody looks or cancels without a person behind them."""

from __future__ import annotations

import pytest

from sealbus.agents.console.agent import Canceled, View, Viewer, console_agent
from sealbus.agents.sdk.sender import Sender
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.errors import Denied
from sealbus.testing import TestBus


class Cancels(Sender):
    """Sends nothing."""

    def __init__(self) -> None:
        pass


async def test_the_starter_policy_lets_those_look_who_manage_the_console() -> None:
    async with TestBus(console_agent(Cancels())) as bus:
        edge = await bus.client("edge")
        seen = await edge.call("console.view", View(area="live"), returns=Viewer, user=bus.user("olga", "edge"))
        assert seen.user == "olga"
        for user in ("alice", "bob", "dave"):
            with pytest.raises(Denied):
                await edge.call("console.view", View(area="live"), returns=Viewer, user=bus.user(user, "edge"))
        with pytest.raises(Denied):
            await edge.call("console.view", View(area="live"), returns=Viewer)


async def test_a_cancel_is_of_a_handle() -> None:
    async with TestBus(console_agent(Cancels())) as bus:
        edge = await bus.client("edge")
        body = {"handle": "nonsense", "action": "x.y", "reason": ""}
        with pytest.raises(RemoteError) as refused:
            await edge.call("console.cancel", body, returns=Canceled, user=bus.user("olga", "edge"))
        assert refused.value.code == "no_handle"
