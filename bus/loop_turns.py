"""Whether the event loop of a process turns. While it stands still, no stop and no silence of the server is seen."""

from __future__ import annotations

import asyncio
from typing import Final

STILL_WITHIN: Final = 2.0
"""Seconds for which the event loop may have stood still. After longer, a message waits until the loop has turned: a stop, or
the silence of the server, would not be seen yet."""
TURN: Final = 0.25
"""Seconds between two looks at whether the event loop turns."""


class LoopTurns:
    """Notes when the event loop of a process turns, once for all agents of the process that watch it."""

    def __init__(self) -> None:
        self.turned = 0.0
        """When the event loop was last seen to turn, by its own time; 0 while nobody watches."""
        self._watchers = 0
        self._watching = asyncio.Lock()

    @property
    def stood_still(self) -> bool:
        """Whether the event loop did not turn for over `STILL_WITHIN` seconds, as far as was noted."""
        return 0.0 < self.turned < asyncio.get_running_loop().time() - STILL_WITHIN

    async def watch(self) -> None:
        """Note the turns until cancelled, or wait until the agent that does so has left.

        After a standstill, a turn is noted only once the loop has turned for `TURN` seconds.
        """
        loop = asyncio.get_running_loop()
        self.turned = self.turned or loop.time()
        self._watchers += 1
        try:
            async with self._watching:
                while True:
                    before = loop.time()
                    await asyncio.sleep(TURN)
                    if loop.time() - before < STILL_WITHIN:
                        self.turned = loop.time()
        finally:
            self._watchers -= 1
            if not self._watchers:
                self.turned = 0.0
