"""A child of a `Supervisor`: `python supervised_child.py FOLDER NUMBER LINE MEMORY`.

What it does stands in the file FOLDER/how. It adds a line `NUMBER PID begun` and, if it is told to stop, `NUMBER PID stopped`
to FOLDER/log, and `NUMBER PID left-N` for what process N of its number had left in its memory.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from sealbus.agents.runtime.process.in_flight import tables_in
from sealbus.agents.runtime.process.supervisor import ParentLine

__all__ = ["command_in", "log_of"]

FAILS, CRASHES, UNDRAINED = 3, 7, 1


def command_in(folder: Path, how: str) -> list[str]:
    """Say how children behave from now on, and return their command up to their number, line and memory."""
    (folder / "how").write_text(how)
    return [sys.executable, __file__, str(folder)]


def log_of(folder: Path, event: str) -> list[tuple[int, int]]:
    """Return number and process ID of each child that `event` is told of, in order."""
    log = folder / "log"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(int(number), int(pid)) for number, pid, what in lines if what == event]


async def main(folder: Path, number: str, line: int, memory: int) -> int:
    [table] = tables_in(memory, agents=1, places=4)

    def told(event: str) -> None:
        with (folder / "log").open("a") as log:
            log.write(f"{number} {os.getpid()} {event}\n")

    for digest in table.left:
        told(f"left-{digest[0]}")
    table.enter(bytes([int(number)]) * 32)
    how = (folder / "how").read_text()
    stop = asyncio.Event()
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with ParentLine(line, stop) as parent:
        if how == "hangs" and number == "1":
            told("hangs")
            await stop.wait()
        if how != "fails":
            parent.ready()
        told("begun")
        if how in ("fails", "crashes"):
            return FAILS if how == "fails" else CRASHES
        await stop.wait()
        told("stopped")
    return UNDRAINED if how == "undrained" else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
