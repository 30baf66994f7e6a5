"""The ledger on two cells, while workers are killed and an agent is moved: no promise is broken, and both logs verify."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest
from independent import verify_export as independent
from ledger.cells import CELLS, CLERKS, NOTARIES, OPERATORS, CellsLedger, lines_of, open_cells
from ledger.count import Count, judge, recorded
from support.sealed_log import sealed
from support.workload_api import short_folder

from sealbus.agents.control.notary.keys import load_signers
from sealbus.agents.sdk.task_handle import parse_handle
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.policies.bundle import cells

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(600)]

SEALBUS = Path(sys.executable).parent / "sealbus"
RATE = 12.0
BANK, MALL, SHOP = (f"spiffe://example.org/agent/{name}" for name in ("bank", "mall", "shop"))
AHEAD = 20.0
"""Seconds from the push of the move to its time."""
SEED = 7


async def sealbus(*arguments: str | Path, code: int = 0) -> str:
    """Run a command and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        SEALBUS, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == code, (arguments, out.decode(), err.decode())
    return out.decode()


def verifier_of(ledger: CellsLedger, cell: str) -> NoteVerifier:
    table = ledger.settings(cell).control.notary
    assert table.origin is not None
    return load_signers(table.keys, table.origin)[0].verifier


async def counted(ledger: CellsLedger) -> Count:
    """Return what is counted once each sender was told the end of what it sent."""
    findings, allowed, killed = await recorded(ledger.settings("default"), *OPERATORS.values())
    later = await ledger.later()
    return judge(ledger.book, allowed=allowed, killed=killed, told=ledger.told, later=later, findings=findings)


async def test_an_agent_is_moved_while_workers_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "AHEAD", int(AHEAD / 2 * SECOND))
    chance, stop = random.Random(SEED), asyncio.Event()  # noqa: S311 -- moments, no secrets
    with short_folder() as folder:
        async with open_cells(folder) as ledger:
            async with asyncio.TaskGroup() as group:
                group.create_task(ledger.send(RATE, stop))
                for _ in range(2):
                    await ledger.kill_one(chance)
                await ledger.move(ahead=AHEAD)
                moved = asyncio.get_running_loop().time() + AHEAD
                for _ in range(2):
                    await ledger.kill_one(chance)
                await asyncio.sleep(max(0.0, moved - asyncio.get_running_loop().time()))
                for _ in range(2):
                    await ledger.kill_one(chance)
                stop.set()
            count = await counted(ledger)
            print(count)  # noqa: T201
            assert count.problems == []
            assert ledger.kills == 6
            await check_lists(ledger)
            await check_logs(ledger, tmp_path)


async def check_lists(ledger: CellsLedger) -> None:
    """One command lists the tasks of both cells with the ends that their senders were told, whichever cell has them."""
    config, clerks = ("--config", ledger.settings_file("default")), [f"--as={name}" for name in CLERKS.values()]
    listed = lines_of(await sealbus("task", "ls", *clerks, "--limit", "10000", "--json", *config))
    # Each cell has tasks of the moved agent, from both senders.
    placed = {(str(one["as"]), str(one["from"])) for one in listed if one["agent"] == BANK}
    assert placed == {(clerk, sender) for clerk in CLERKS.values() for sender in (SHOP, MALL)}
    times = [str(one["time"]) for one in listed]
    assert times == sorted(times, reverse=True)
    states = {str(one["message"]): str(one["state"]) for one in listed}
    rows = ledger.book.rows("SELECT number, handle FROM acknowledged")
    told = {parse_handle(str(handle)).pending.id.hex(): ledger.told[int(str(number))] for number, handle in rows}
    assert {message: states.get(message) for message in told} == {
        message: end.split()[0] for message, end in told.items()
    }
    alone = lines_of(await sealbus("task", "ls", clerks[0], "--limit", "10000", "--json", *config))
    assert 0 < len(alone) < len(listed)
    # Its own cell has no status of what was sent from the other one.
    assert any(one["state"] == "submitted" and states[str(one["message"])] != "submitted" for one in alone)
    # What follows from a task is in the cell of its agent, and in that of its sender, who decides about the answer.
    [chain] = [one for one in listed if (one["from"], one["action"], one["state"]) == (SHOP, "vault.pay", "completed")][
        :1
    ]
    both = [f"--as={name}" for name in OPERATORS.values()]
    recorded = {
        operators: lines_of(
            await sealbus("audit", "replay", *operators, "--chain", str(chain["hash"]), "--json", *config)
        )
        for operators in (tuple(both), (both[0],), (both[1],))
    }
    assert {str(one["as"]) for one in recorded[tuple(both)]} == {*OPERATORS.values()}
    assert [str(one["time"]) for one in recorded[tuple(both)]] == sorted(
        str(one["time"]) for one in recorded[tuple(both)]
    )
    assert len(recorded[tuple(both)]) == sum(len(recorded[(one,)]) for one in both)


async def check_logs(ledger: CellsLedger, folder: Path) -> None:
    """Both logs verify as one set, by both verifiers."""
    exports: list[tuple[Path, Path]] = []
    for cell in CELLS:
        verifier, config = verifier_of(ledger, cell), ("--config", ledger.settings_file(cell))
        await sealed(ledger.settings(cell), ledger.log(cell), verifier, operator=OPERATORS[cell])
        root, export = folder / f"{cell}.json", folder / cell
        notary = f"spiffe://example.org/agent/{NOTARIES[cell]}"
        root.write_text(await sealbus("audit", "root", "--key", verifier.text, "--notary", notary, *config))
        await sealbus("audit", "export", export, "--root", root, "--as", OPERATORS[cell], *config)
        exports.append((export, root))
    for (export, root), other in zip(exports, reversed(exports), strict=True):
        options = [str(option) for option in (export, "--root", root, "--beside", *other)]
        said = lines_of(await sealbus("audit", "verify", *options, "--json"))
        assert [(one["kind"], one["passed"]) for one in said] == [("report", True)] * 2
        assert independent.main(options) == 0
