"""A process that follows the policy as every worker does: `python revocation_watcher.py SETTINGS NAME`.

It prints `ready`, then the time at which each list of revocations came in force.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import load_settings


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def run(settings: Path, name: str) -> None:
    async with open_node(name, load_settings(settings)) as node:
        say("ready")
        seen = node.revocations()
        while True:
            await asyncio.sleep(0.005)
            if node.revocations() is not seen:
                seen = node.revocations()
                say(f"{time.time():.6f}")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2]))
