"""How soon a pushed policy decides everywhere: 20 pushes, 50 engines in 5 processes, embedded and through OPA.

Measured from the start of the push, which checks the part as consumers do, to each engine's first decision under the new
revision. It needs the opa of `make tools`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from support.lab import Lab, running
from support.policy_bus import ANCHORS, ROOT, opa_polling, serving

from bench.report import Figure
from sealbus.agents.runtime.policy.deny_list import Denial, add
from sealbus.agents.runtime.policy.push import change_platform, content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.envelopes.trust.keys import public_pem
from sealbus.policies.bundle.files import STARTER

__all__ = ["figures"]

PUSHES = 20
PROCESSES = 5
ENGINES = 10
"""In each process."""
WITHIN = 60.0
ROOT_FOLDER = Path(__file__).resolve().parent.parent
EMBEDDED_GOAL = 1.0
OPA_GOAL = 2.0


@dataclass
class _Consumers:
    """The processes, and when each engine reached each revision."""

    at: dict[str, dict[tuple[int, int], float]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def all_at(self, revision: str) -> list[float]:
        async with asyncio.timeout(WITHIN):
            while len(self.at.get(revision, {})) < PROCESSES * ENGINES:
                self.changed.clear()
                await self.changed.wait()
        return list(self.at[revision].values())

    async def listen(self, number: int, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise RuntimeError("no output")
        async for line in process.stdout:
            said = json.loads(line)
            self.at.setdefault(said["revision"], {})[number, said["engine"]] = said["at"]
            self.changed.set()


async def figures() -> AsyncIterator[Figure]:
    """Push 20 times, each time until all engines decide by it; first embedded, then through one OPA per process."""
    for name, through_opa, goal in (("embedded", False, EMBEDDED_GOAL), ("through OPA", True, OPA_GOAL)):
        taken = await _measure(through_opa=through_opa)
        taken.sort()
        yield Figure(name=f"policy push to force, {name}, p50", value=statistics.median(taken), unit="s")
        yield Figure(name=f"  p99 of {len(taken)}", value=taken[int(len(taken) * 0.99) - 1], unit="s", goal=goal)


async def _measure(*, through_opa: bool) -> list[float]:
    taken: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            lab = await stack.enter_async_context(running(folder / "nats", "a", "control"))
            connection = await stack.enter_async_context(lab.connection("a"))
            store = PolicyStore(connection, "policies")
            await store.create()
            pushed = await push_content(store, ANCHORS, "platform", content_of(STARTER), ROOT)
            sockets = [""] * PROCESSES
            if through_opa:
                control = PolicyStore(await stack.enter_async_context(lab.connection("control")), "policies")
                _, server = await stack.enter_async_context(serving(lab, control, folder / "control"))
                for number in range(PROCESSES):
                    polling = opa_polling(lab, server.port, folder / f"opa{number}")
                    opa = await asyncio.to_thread(polling.__enter__)
                    stack.callback(polling.__exit__, None, None, None)
                    sockets[number] = str(opa.socket)
            consumers = _Consumers()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for number, socket in enumerate(sockets):
                process = await _start(lab, folder / f"cache{number}", socket)
                stack.push_async_callback(_stop, process)
                group.create_task(consumers.listen(number, process))
            await consumers.all_at(pushed.composed)
            for number in range(PUSHES):
                began = time.monotonic()
                pushed = await change_platform(store, ANCHORS, add(Denial(kind="user", id=f"u-{number}")), ROOT)
                taken += [at - began for at in await consumers.all_at(pushed.composed)]
    return taken


async def _start(lab: Lab, folder: Path, socket: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.policy_consumers",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT_FOLDER,
    )  # fmt: skip
    svid = lab.ca.issue("spiffe://example.org/agent/a")
    said = {
        "url": lab.server.url, "server": lab.server.spiffe_id, "folder": str(folder), "opa": socket,
        "engines": ENGINES, "id": svid.spiffe_id, "certificate": svid.cert_der.hex(), "key": svid.key_der.hex(),
        "anchor": lab.ca.cert_der.hex(), "not_before": svid.not_before, "not_after": svid.not_after,
        "anchor_key": public_pem(ROOT.public),
    }  # fmt: skip
    if process.stdin is None:
        raise RuntimeError("no input")
    process.stdin.write(json.dumps(said).encode() + b"\n")
    await process.stdin.drain()
    return process


async def _stop(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()
