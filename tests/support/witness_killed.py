"""A process that cosigns and is killed at one line of that work: `python witness_killed.py FOLDER OLD NEW LINE`.

It prints the cosignatures that it gives out. LINE counts the lines that run from `CosignedLog.add` on, in the modules that
decide and write; beyond the last the process ends by itself.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from support.plain_log import PlainLog, leaf

from sealbus.agents import files
from sealbus.agents.control.witness import folder, submission
from sealbus.agents.control.witness.folder import CosignedLog, locked_folder
from sealbus.agents.control.witness.submission import WitnessedLog, open_submission
from sealbus.envelopes.log.cosignature import CosignatureSigner, CosignatureType
from sealbus.envelopes.log.note import NoteSigner

__all__ = ["FORK", "KNOWN", "LOG", "SIGNERS"]

KEY = NoteSigner("log.example.com/plain", bytes(32))
LOG = PlainLog(KEY, [leaf(number) for number in range(30)])
FORK = PlainLog(KEY, [leaf(number, "fork") for number in range(30)])
KNOWN = WitnessedLog.parse(LOG.origin, (KEY.verifier.text,))
SIGNERS = [CosignatureSigner("witness", kind, bytes(32)) for kind in CosignatureType]
_MODULES = {module.__file__ for module in (files, folder, submission)}


def main(path: Path, old: int, new: int, line: int) -> None:
    """Cosign from `old` to `new`, killed at the line number `line`."""
    left = line

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        del argument
        if frame.f_code.co_filename not in _MODULES:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    with locked_folder(path):
        cosigned = CosignedLog(KNOWN, path, SIGNERS)
        request = open_submission(LOG.request(old, new), {LOG.origin: KNOWN})
        sys.settrace(count)
        lines = cosigned.add(request, 1_000)
        sys.settrace(None)
        sys.stdout.write(lines)
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
