"""The callout's role: it answers whether or not its own process has an ordinary connection."""

from __future__ import annotations

import asyncio
from typing import cast

from sealbus.agents.control.callout.policy import NOT_KNOWN
from sealbus.agents.control.callout.responder import Callout
from sealbus.agents.control.callout.role import CalloutRole, OrdinaryConnection


class Part:
    """A callout or a connection: runs until it is cancelled."""

    problem = "the auth callout does not run"

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


async def test_both_run_until_cancelled() -> None:
    """The ordinary connection is let in by the answers: whoever waited for it before would wait for ever."""
    callout, ordinary, known = Part(), Part(), asyncio.Event()
    role = CalloutRole(cast("Callout", callout), cast("OrdinaryConnection", ordinary), known)
    assert role.problem == callout.problem
    running = asyncio.create_task(role.run())
    await callout.running.wait()
    await ordinary.running.wait()
    running.cancel()
    await asyncio.wait({running})
    assert (callout.ended, ordinary.ended) == (True, True)


def test_it_is_not_ready_before_it_knows_what_the_bucket_holds() -> None:
    """A server that is told to ask again about everybody waits for a responder that is ready."""
    callout, known = Part(), asyncio.Event()
    callout.problem = ""
    role = CalloutRole(cast("Callout", callout), cast("OrdinaryConnection", Part()), known)
    assert role.problem == NOT_KNOWN
    known.set()
    assert role.problem == ""
