"""The manager `boss`, who approves or denies at the edge what waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from promises.history import What

from simulation.edge import request
from simulation.network import Link
from simulation.plan import LATE
from simulation.processes import QUEUE
from simulation.site import START, Site

__all__ = ["boss"]

LOOK: Final = 5.0
"""Seconds between two looks at the queue."""


async def boss(site: Site, link: Link, verdicts: Mapping[int, str]) -> None:
    """Say of each task that waits what `verdicts` has for its number, again until that is counted; nothing of the others."""
    while True:
        try:
            listed = await request(site, link, "GET", f"/v1/approvals?queue={QUEUE}", user="boss")
            for parked in listed.document["approvals"] if listed.status == 200 else ():
                await _decide(site, link, parked, verdicts.get(parked["facts"]["number"], ""))
        except TimeoutError:
            # The edge is away.
            pass
        await asyncio.sleep(LOOK)


async def _decide(site: Site, link: Link, parked: dict[str, Any], verdict: str) -> None:
    left = datetime.fromisoformat(parked["until"]).timestamp() - START - site.loop.now
    if not verdict or (verdict == LATE and left > LOOK):
        return
    if verdict == LATE:
        await asyncio.sleep(max(0.0, left - 2.0 * site.random.random()))
        verdict = "approve"
    number, message = parked["facts"]["number"], parked["task"]
    site.note(What.SAID, number, message, verdict)
    said = {"decision": parked["decision"], "verdict": verdict}
    answer = await request(site, link, "POST", f"/v1/approvals/{parked['id']}", user="boss", body=said)
    if answer.status == 200:
        site.note(What.COUNTED, number, message, verdict)
