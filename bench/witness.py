"""How soon three of five witnesses have cosigned a checkpoint of a growing log: five of our role, on loopback.

Measured as the notary sees it, from the offer of a checkpoint until the cosigned note: consistency proofs, HTTP, a synced
file for each checkpoint, signatures of ML-DSA-44 and Ed25519, and their verification. All of it shares one process.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from support.grown_log import ORIGIN, SIGNER, GrownLog
from support.witness_site import WitnessSite, witness_keys

from bench.report import Figure
from sealbus.agents.control.notary.cosigning import Cosigning
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.note import parse_note
from sealbus.envelopes.log.witness_policy import WitnessPolicy

__all__ = ["figures"]

WITNESSES = 5
QUORUM = 3
CHECKPOINTS = 200
STEP = 50
"""Entries between two checkpoints."""
WITHIN = 30.0
LOOK_EVERY = 0.001
GOAL = 100.0
_LINES_OF_LOG = 1


async def figures() -> AsyncIterator[Figure]:
    """Offer 200 checkpoints, each once all witnesses have cosigned the one before."""
    quorums: list[float] = []
    wholes: list[float] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-")))
        rows, names = [f"log {SIGNER.verifier.text}"], [f"w{number}" for number in range(WITNESSES)]
        for name in names:
            own = folder / name
            own.mkdir()
            site = await stack.enter_async_context(WitnessSite.open(own, {ORIGIN: SIGNER.verifier.text}))
            _, signer = witness_keys(own)
            rows.append(f"witness {name} {signer.verifier.text} http://127.0.0.1:{site.server.port}")
        rows += [f"group some {QUORUM} {' '.join(names)}", "quorum some", ""]
        log = GrownLog(folder / "log")
        cosigning = Cosigning(WitnessPolicy.parse("\n".join(rows).encode()), counters=Counters(), get=log.store.get)
        asking = asyncio.create_task(cosigning.run())
        try:
            for number in range(1, CHECKPOINTS + 1):
                note = log.grow(number * STEP)
                began = time.perf_counter()
                cosigning.offer(Checkpoint(ORIGIN, number * STEP, log.ledger.root()), note)
                quorum, whole = await _cosigned(cosigning, note, began)
                quorums.append(quorum)
                wholes.append(whole)
        finally:
            asking.cancel()
            await asyncio.wait({asking})
    for label, taken in ((f"{QUORUM} of {WITNESSES}", quorums), (f"all {WITNESSES}", wholes)):
        taken.sort()
        goal = GOAL if taken is quorums else None
        yield Figure(
            name=f"checkpoint to cosignatures of {label}, p50", value=statistics.median(taken), unit="ms", goal=goal
        )
        yield Figure(name=f"  p99 of {len(taken)}", value=taken[int(len(taken) * 0.99) - 1], unit="ms")


async def _cosigned(cosigning: Cosigning, note: bytes, began: float) -> tuple[float, float]:
    """Wait until all witnesses have cosigned `note`; return the milliseconds from `began` to the quorum, and to all."""
    quorum = 0.0
    async with asyncio.timeout(WITHIN):
        while True:
            found = cosigning.take()
            if found is not None and found.signed == note:
                passed = (time.perf_counter() - began) * 1e3
                lines = len(parse_note(found.cosigned).signatures) - _LINES_OF_LOG
                quorum = quorum or (passed if lines >= QUORUM else 0.0)
                if lines == WITNESSES:
                    return quorum, passed
            await asyncio.sleep(LOOK_EVERY)
